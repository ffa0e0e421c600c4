package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// claims watches who gets which lease in a lab.
type claims struct {
	l     *lab.Lab
	start int64 // the store's revision at which it began to watch
}

func watchClaims(ctx context.Context, t *testing.T, l *lab.Lab) claims {
	t.Helper()
	now, err := l.Etcd().Client().Get(ctx, subnetsPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return claims{l, now.Header.Revision}
}

// history returns the holders that each lease had, in turn, as name and public IP, and the number of writes.
func (c claims) history(ctx context.Context, t *testing.T) (holders map[string][]string, writes int) {
	t.Helper()
	client := c.l.Etcd().Client()
	now, err := client.Get(ctx, subnetsPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	holders = map[string][]string{}
	add := func(key, value []byte) {
		r := subnet.DecodeRecord(strings.TrimPrefix(string(key), subnetsPrefix), value)
		holder := fmt.Sprintf("%s %s", r.NodeName, r.Endpoints[subnet.IPv4].PublicIP)
		if all := holders[r.Name]; len(all) == 0 || all[len(all)-1] != holder {
			holders[r.Name] = append(all, holder)
		}
	}
	old, err := client.Get(ctx, subnetsPrefix, clientv3.WithPrefix(), clientv3.WithRev(c.start))
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range old.Kvs {
		add(kv.Key, kv.Value)
	}
	if now.Header.Revision == c.start {
		return holders, 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The progress after the last event says that there are no more.
	for r := range client.Watch(ctx, subnetsPrefix, clientv3.WithPrefix(), clientv3.WithRev(c.start+1)) {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Events {
			if writes++; e.Type == clientv3.EventTypePut {
				add(e.Kv.Key, e.Kv.Value)
			}
		}
		if r.Header.Revision >= now.Header.Revision {
			break
		}
	}
	return holders, writes
}

// expect checks how often a lease went to another holder and back, and the number of writes.
func (c claims) expect(ctx context.Context, t *testing.T, exchanges, writes int) {
	t.Helper()
	holders, n := c.history(ctx, t)
	for name, all := range holders {
		if len(all)-1 > 2*exchanges {
			t.Errorf("%s was held in turn by %q, want %d exchanges at most", name, all, exchanges)
		}
	}
	if n > writes {
		t.Errorf("%d writes, want %d at most; holders: %q", n, writes, holders)
	}
}

func subnetOf(t *testing.T, n *lab.Node) netip.Prefix {
	t.Helper()
	f, err := n.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	return f.Subnets[subnet.IPv4].Masked()
}

// hasOtherSubnet waits until a node is ready with another subnet than this one.
func hasOtherSubnet(ctx context.Context, t *testing.T, n *lab.Node, than netip.Prefix) {
	t.Helper()
	waitFor(ctx, t, n.Name()+" has another subnet", func() error {
		f, err := n.Subnet()
		if err == nil && f.Subnets[subnet.IPv4].Masked() == than {
			err = fmt.Errorf("it has %s", than)
		}
		if err != nil {
			return err
		}
		s, err := n.Status(ctx)
		if err == nil && s.Lease == nil {
			err = fmt.Errorf("it has no lease: %+v", s.Problems)
		}
		return err
	})
}

// forget removes what a node has on disk, and its device, as a new installation of the machine does.
func forget(n *lab.Node) error {
	n.Kill()
	return n.Do(func() error {
		link, err := netlink.LinkByName("flannel.1")
		if err == nil {
			err = netlink.LinkDel(link)
		}
		return errors.Join(err, os.RemoveAll("/var/lib/selvage"), os.RemoveAll(subnetFile))
	})
}

// TestClaims: whoever has the public IP or the identity of a live node, the node keeps its lease, or has it back after
// one exchange; and a lease whose holder is gone is used again.
func TestClaims(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	first, second := l.Nodes()[0], l.Nodes()[1]
	ready := func(ctx context.Context, t *testing.T, nodes ...*lab.Node) {
		for _, n := range nodes {
			if err := errors.Join(n.Start(), n.WaitReady(ctx)); err != nil {
				t.Fatal(err)
			}
		}
	}

	t.Run("installed again", func(t *testing.T) {
		ctx := testctx.New(t)
		had, seen := subnetOf(t, second), watchClaims(ctx, t, l)
		if err := forget(second); err != nil {
			t.Fatal(err)
		}
		ready(ctx, t, second)
		if now := subnetOf(t, second); now != had {
			t.Errorf("it has %s, and had %s before", now, had)
		}
		seen.expect(ctx, t, 0, 3) // the question, the takeover, the MAC address
	})

	t.Run("virtual address moves", func(t *testing.T) {
		ctx := testctx.New(t)
		const vip = "172.31.0.200"
		move := func(from, to *lab.Node) {
			if from != nil {
				setAddress(t, from, vip, netlink.AddrDel)
			}
			setAddress(t, to, vip, netlink.AddrAdd)
		}
		move(nil, first)
		if err := forget(second); err != nil {
			t.Fatal(err)
		}
		first.SetDaemonArgs("--iface=" + vip)
		second.SetDaemonArgs("--iface=" + vip)
		if err := first.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		ready(ctx, t, first)
		had, seen := subnetOf(t, first), watchClaims(ctx, t, l)
		if err := second.Start(); err != nil {
			t.Fatal(err)
		}
		move(first, second)
		hasOtherSubnet(ctx, t, second, had)
		move(second, first)
		waitFor(ctx, t, "the uplink is reported as lost", func() error {
			s, err := second.Status(ctx)
			if err == nil && !slices.ContainsFunc(s.Problems, func(p status.Problem) bool { return p.Topic == "uplink" }) {
				err = fmt.Errorf("problems %+v", s.Problems)
			}
			return err
		})
		if now := subnetOf(t, first); now != had || now == subnetOf(t, second) {
			t.Errorf("%s has %s, and had %s; %s has %s", first.Name(), now, had, second.Name(), subnetOf(t, second))
		}
		seen.expect(ctx, t, 0, 6)
		setAddress(t, first, vip, netlink.AddrDel)
		for _, n := range []*lab.Node{first, second} {
			n.SetDaemonArgs("--iface=eth0")
			if err := n.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			ready(ctx, t, n)
		}
	})

	t.Run("two daemons on one machine", func(t *testing.T) {
		ctx := testctx.New(t)
		had, seen := subnetOf(t, first), watchClaims(ctx, t, l)
		end := secondDaemon(ctx, t, l, first)
		waitFor(ctx, t, "the log", func() error { return end.says("another selvaged on this node keeps the network") })
		seen.expect(ctx, t, 0, 0)
		if err := first.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "the second daemon", func() error { return end.says("lease acquired") })
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "the log", func() error { return says(first, "another selvaged on this node keeps the network") })
		seen.expect(ctx, t, 0, 3)
		end.stop()
		ready(ctx, t, first)
		if now := subnetOf(t, first); now != had {
			t.Errorf("it has %s, and had %s before", now, had)
		}
		seen.expect(ctx, t, 0, 6)
	})

	t.Run("flannel", func(t *testing.T) {
		ctx := testctx.New(t)
		had := subnetOf(t, first)
		key := subnetsPrefix + strings.ReplaceAll(had.String(), "/", "-")
		seen, client := watchClaims(ctx, t, l), l.Etcd().Client()
		value := fmt.Sprintf(`{"PublicIP":"%s","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:fa"}}`,
			first.Addr(subnet.IPv4))
		for _, back := range []bool{true, false} {
			lease, err := client.Grant(ctx, 24*3600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Put(ctx, key, value, clientv3.WithLease(lease.ID)); err != nil {
				t.Fatal(err)
			}
			if !back {
				hasOtherSubnet(ctx, t, first, had)
				break
			}
			waitFor(ctx, t, "the lease again", func() error {
				kv, err := client.Get(ctx, key)
				if err == nil && (len(kv.Kvs) != 1 || !strings.Contains(string(kv.Kvs[0].Value), `"InstanceID"`)) {
					err = fmt.Errorf("%v", kv.Kvs)
				}
				return err
			})
		}
		seen.expect(ctx, t, 2, 4) // flannel's, and this node's one answer
	})

	t.Run("clone", func(t *testing.T) {
		ctx := testctx.New(t)
		if err := forget(second); err != nil {
			t.Fatal(err)
		}
		var state []byte
		file := filepath.Join("/var/lib/selvage", "node.json")
		if err := first.Do(func() (err error) { state, err = os.ReadFile(file); return err }); err != nil {
			t.Fatal(err)
		}
		mac := macOfEth0(t, first.Endpoint)
		err := second.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetHardwareAddr(link, mac), os.MkdirAll(filepath.Dir(file), 0o700),
				os.WriteFile(file, state, 0o600))
		})
		if err != nil {
			t.Fatal(err)
		}
		had, seen := subnetOf(t, first), watchClaims(ctx, t, l)
		if err := second.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "a second identity", func() error {
			if err := says(first, "this node has a new id now"); err != nil {
				return says(second, "this node has a new id now")
			}
			return nil
		})
		hasOtherSubnet(ctx, t, second, had)
		seen.expect(ctx, t, 1, 8)
	})
}

// setAddress adds an address to a node's uplink, or removes it.
func setAddress(t *testing.T, n *lab.Node, ip string, set func(netlink.Link, *netlink.Addr) error) {
	t.Helper()
	err := n.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return set(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(netip.MustParseAddr(ip), 32))})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// macOfEth0 returns the MAC address of eth0: a node's uplink, or a pod's interface.
func macOfEth0(t *testing.T, e *lab.Endpoint) (mac net.HardwareAddr) {
	t.Helper()
	err := e.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// anotherDaemon is a second daemon on a node.
type anotherDaemon struct {
	log  string
	stop func()
}

// secondDaemon starts a daemon on a node that has one, with files of its own.
func secondDaemon(ctx context.Context, t *testing.T, l *lab.Lab, n *lab.Node) *anotherDaemon {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	d := &anotherDaemon{log: filepath.Join(t.TempDir(), "log")}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = n.Output(ctx, "sh", "-c", fmt.Sprintf("exec %s/selvaged --etcd-endpoints=%s --iface=eth0 --ip-masq "+
			"--node-name=%s --state-dir=/var/lib/second --subnet-file=/run/second.env --socket=/run/second.sock "+
			"--peer-probe-interval=0 >%s 2>&1", dir, strings.Join(l.Etcd().Endpoints(), ","), n.Name(), d.log))
	}()
	d.stop = func() { cancel(); <-done }
	t.Cleanup(d.stop)
	return d
}

func (d *anotherDaemon) says(text string) error {
	log, err := os.ReadFile(d.log)
	if err == nil && !strings.Contains(string(log), text) {
		err = fmt.Errorf("it does not say %q: %s", text, log)
	}
	return err
}
