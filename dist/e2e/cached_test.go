package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet/cache"
)

// Where the lab's daemons keep their files, on each node.
const (
	subnetFile = "/run/flannel/subnet.env"
	leasesFile = "/var/lib/selvage/leases"
)

// reboot takes from a node what a reboot takes: the daemon, its device with all that hangs on it, the subnet file.
func reboot(n *lab.Node) error {
	n.Kill()
	return n.Do(func() error {
		link, err := netlink.LinkByName("flannel.1")
		return errors.Join(err, netlink.LinkDel(link), os.Remove(subnetFile))
	})
}

// kept waits until a node has written its leases down.
func kept(ctx context.Context, t *testing.T, n *lab.Node) {
	t.Helper()
	waitFor(ctx, t, "leases kept", func() error {
		return n.Do(func() error {
			data, err := os.ReadFile(leasesFile)
			if err == nil && strings.Count(string(data), "\nlease ") < 2 {
				err = fmt.Errorf("%s holds %s", leasesFile, data)
			}
			return err
		})
	})
}

// TestStartWithoutEtcd: a node that comes up while etcd is down does so from the leases that it kept, with its own subnet
// if its lease cannot have run out; and all is as usual when etcd is back.
func TestStartWithoutEtcd(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	for _, tt := range []struct {
		what    string
		args    []string
		expired bool // the node's own lease, as far as the node knows
		damaged bool // the file, at a first start
		ready   bool // before etcd is back
		peers   bool // can be reached before etcd is back
		says    string
	}{
		{what: "the lease runs", damaged: true, ready: true, peers: true, says: "starting from cached leases"},
		{what: "the lease may have run out", expired: true, peers: true, says: "may have expired"},
		{what: "it is not wanted", args: []string{"--no-cached-start"}, says: "etcd unavailable"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			ctx := testctx.New(t)
			node := l.Nodes()[0]
			node.SetDaemonArgs(append([]string{"--iface=eth0"}, tt.args...)...) // from its next start on
			before, err := node.Subnet()
			if err != nil {
				t.Fatal(err)
			}
			kept(ctx, t, node)
			l.Etcd().Kill()
			if err := reboot(node); err != nil {
				t.Fatal(err)
			}
			if tt.damaged {
				startDamaged(ctx, t, node)
			}
			if tt.expired {
				expire(t, node)
			}
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			if tt.ready {
				if err := node.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(ctx, t, tt.what, func() error { return says(node, tt.says) })
			if tt.peers {
				waitFor(ctx, t, tt.what, func() error { return hasRoutes(node, 1) })
			}
			if after, err := node.Subnet(); tt.ready && after.Subnets != before.Subnets || !tt.ready && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("subnet file without etcd: %+v, %v; before %+v", after, err, before)
			}
			if err := l.Etcd().Start(ctx); err != nil {
				t.Fatal(err)
			}
			if err := node.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			waitFor(ctx, t, "with etcd back", func() error { return errors.Join(hasRoutes(node, 1), says(node, "lease acquired\"")) })
			if after, err := node.Subnet(); err != nil || after.Subnets != before.Subnets {
				t.Errorf("subnet file with etcd back: %+v, %v; before %+v", after, err, before)
			}
		})
	}
}

// expire changes a stopped node's cached leases as if the node's own lease had expired meanwhile.
func expire(t *testing.T, n *lab.Node) {
	t.Helper()
	err := n.Do(func() error {
		cached, err := cache.Read(leasesFile)
		if err != nil {
			return err
		}
		if !time.Now().Before(cached.OwnExpires) {
			return fmt.Errorf("%s: the node's own lease expired at %s already", leasesFile, cached.OwnExpires)
		}
		cached.OwnExpires = time.Now().Add(-time.Second)
		return cache.Write(leasesFile, cached)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startDamaged starts a node with a damaged file of leases: that is set aside, and the node waits. Then the file is put
// back as it was, and the daemon ended.
func startDamaged(ctx context.Context, t *testing.T, n *lab.Node) {
	t.Helper()
	var whole []byte
	err := n.Do(func() (err error) {
		if whole, err = os.ReadFile(leasesFile); err != nil {
			return err
		}
		return os.WriteFile(leasesFile, whole[:len(whole)-3], 0o600)
	})
	if err := errors.Join(err, n.Start()); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "a damaged file", func() error { return says(n, "ignoring cached leases") })
	n.Kill()
	err = n.Do(func() error {
		if left, err := os.ReadFile(leasesFile + ".damaged"); err != nil || len(left) != len(whole)-3 {
			t.Errorf("set aside was %q, %v", left, err)
		}
		return os.WriteFile(leasesFile, whole, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Subnet(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the subnet file with a damaged file of leases: %v", err)
	}
}

// says checks that the last run of a node's daemon has logged a text.
func says(n *lab.Node, text string) error {
	log, err := os.ReadFile(n.LogPath())
	runs := strings.Split(string(log), "selvaged starts")
	if last := runs[len(runs)-1]; err == nil && !strings.Contains(last, text) {
		err = fmt.Errorf("%s does not say %q: %s", n.Name(), text, last)
	}
	return err
}

// waitSays waits until the last run of a node's daemon has logged a text. The daemon writes its log in the background, so
// a line may come after the readiness that it reports.
func waitSays(ctx context.Context, t *testing.T, n *lab.Node, text string) {
	t.Helper()
	waitFor(ctx, t, "the log", func() error { return says(n, text) })
}

// hasRoutes checks how many routes lead into the tunnel.
func hasRoutes(n *lab.Node, want int) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName("flannel.1")
		if err != nil {
			return err
		}
		routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
		if err == nil && len(routes) != want {
			err = fmt.Errorf("%s: %d routes lead into the tunnel, want %d: %v", n.Name(), len(routes), want, routes)
		}
		return err
	})
}
