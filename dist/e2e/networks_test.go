package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
)

// second is a second network on the nodes of a lab, kept by daemons of its own.
type second struct {
	scope   network.Scope
	config  string
	daemons []*lab.Program
}

const secondSocket = "/run/second.sock"

// startSecond starts a daemon of the second network on each node. They get the state directory of the first one's.
func startSecond(ctx context.Context, t *testing.T, l *lab.Lab, s *second) {
	t.Helper()
	if _, err := l.Etcd().Client().Put(ctx, s.scope.Prefix+"/config", s.config); err != nil {
		t.Fatal(err)
	}
	daemon, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		p, err := lab.StartProgram(n.Do, n.LogPath()+".second", []string{daemon,
			"--etcd-endpoints", strings.Join(l.Etcd().Endpoints(), ","), "--etcd-prefix", s.scope.Prefix, "--iface", "eth0",
			"--ip-masq", "--subnet-file", "/run/second.env", "--socket", secondSocket})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		s.daemons = append(s.daemons, p)
	}
}

// statusOf asks the daemon on a socket of a node. Each node has a /run of its own; net/http dials on a goroutine of its
// own, so Node.Do would not lead there.
func statusOf(ctx context.Context, n *lab.Node, socket string) (status.Status, error) {
	return status.NewClient(fmt.Sprintf("/proc/%d/root%s", n.PID(), socket)).Status(ctx)
}

// whole says what is missing of a network on a node that has one peer.
func whole(ctx context.Context, n *lab.Node, socket, device, alias string) error {
	s, err := statusOf(ctx, n, socket)
	switch {
	case err != nil:
		return err
	case s.State != status.Ready || s.Peers.Programmed != 1:
		return fmt.Errorf("%s: %s, %+v, %+v", device, s.State, s.Peers, s.Problems)
	}
	for kind, c := range s.Entries {
		if c.Pending > 0 {
			return fmt.Errorf("%s: %s: %+v", device, kind, c)
		}
	}
	return n.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if link.Attrs().Alias != alias {
			return fmt.Errorf("%s has the alias %q, want %q", device, link.Attrs().Alias, alias)
		}
		routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
		if err == nil && len(routes) != 1 {
			err = fmt.Errorf("routes out of %s: %v, want one", device, routes)
		}
		return err
	})
}

// TestTwoNetworks runs two daemons on each node for two networks. Faults on both are repaired, neither touches what the
// other one has, and cleanup removes one of them.
func TestTwoNetworks(t *testing.T) {
	for _, mode := range []struct {
		name, iptables string
		nftables       lab.NFTables
		port           int
	}{{"nftables, one port", "none", lab.NFTablesOn, 8472}, {"iptables, two ports", "nft", lab.NFTablesOff, 8473}} {
		t.Run(mode.name, func(t *testing.T) {
			families := []subnet.Family{subnet.IPv4}
			l := start(t, lab.Options{
				Nodes: 2, IPTables: mode.iptables, Config: lab.NetworkConfig(families, `{"Type":"vxlan"}`, mode.nftables),
			})
			ctx := testctx.New(t)
			s := &second{
				scope: network.NewScope("/second", 2),
				config: fmt.Sprintf(`{"Network":"10.6.0.0/16","EnableNFTables":%t,"Backend":{"Type":"vxlan","VNI":2,"Port":%d}}`,
					mode.iptables == "none", mode.port),
			}
			startSecond(ctx, t, l, s)
			both := func(what string) {
				t.Helper()
				for _, n := range l.Nodes() {
					waitFor(ctx, t, n.Name()+": "+what, func() error {
						return errors.Join(whole(ctx, n, status.DefaultSocket, "flannel.1", "selvage"),
							whole(ctx, n, secondSocket, "flannel.2", s.scope.Alias()))
					})
				}
				crossSecond(ctx, t, l)
			}
			both("two networks")
			a := l.Nodes()[0]
			for _, device := range []string{"flannel.1", "flannel.2"} {
				for name, harm := range map[string]func(netlink.Link) error{
					"deleted": netlink.LinkDel,
					"down":    netlink.LinkSetDown,
				} {
					if err := a.Do(func() error {
						link, err := netlink.LinkByName(device)
						if err != nil {
							return err
						}
						return harm(link)
					}); err != nil {
						t.Fatal(err)
					}
					both(device + " " + name)
				}
			}
			quiet(ctx, t, a, status.DefaultSocket, secondSocket)
			if err := s.daemons[0].Stop(ctx); err != nil {
				t.Fatal(err)
			}
			if out, err := selvaged(ctx, t, a, "cleanup"); err == nil || !strings.Contains(out, "--etcd-prefix=/second (VNI 2)") {
				t.Errorf("cleanup without a choice: %v: %s", err, out)
			}
			args := []string{"cleanup", "--etcd-prefix=/second", "--subnet-file=/run/second.env", "--socket=" + secondSocket}
			out, err := selvaged(ctx, t, a, args...)
			if err != nil || !strings.Contains(out, "link flannel.2") || strings.Contains(out, "flannel.1") ||
				!strings.Contains(out, s.scope.Name(vtepfilter.Table)) || !strings.Contains(out, "/run/second.env") {
				t.Errorf("cleanup of one: %v:\n%s", err, out)
			}
			waitFor(ctx, t, "the first network", func() error {
				return whole(ctx, a, status.DefaultSocket, "flannel.1", "selvage")
			})
			if out, err := selvaged(ctx, t, a, args...); err == nil && out != "" {
				t.Errorf("there was more to be removed: %s", out)
			}
			quiet(ctx, t, a, status.DefaultSocket)
		})
	}
}

// crossSecond sends a packet through the second network, from the address of one node's device to that of the other's,
// past the filters of both networks.
func crossSecond(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	var to netip.Addr
	err := l.Nodes()[1].Do(func() error {
		link, err := netlink.LinkByName("flannel.2")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err == nil && len(addrs) == 1 {
			to, _ = netip.AddrFromSlice(addrs[0].IP)
		}
		return err
	})
	if err != nil || !to.IsValid() {
		t.Fatalf("address of flannel.2: %v, %v", to, err)
	}
	waitFor(ctx, t, "a packet through the second network", func() error {
		out, err := l.Nodes()[0].Output(ctx, "ping", "-c1", "-W1", to.String())
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// quiet expects that nothing changes: no device is created or deleted, and none of the daemons on the sockets repairs
// anything.
func quiet(ctx context.Context, t *testing.T, n *lab.Node, sockets ...string) {
	t.Helper()
	now := func() string {
		t.Helper()
		var all []string
		for _, socket := range sockets {
			s, err := statusOf(ctx, n, socket)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%s: %v", socket, s.Repairs.Counts))
		}
		err := n.Do(func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				all = append(all, fmt.Sprintf("%d %s", l.Attrs().Index, l.Attrs().Name))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, ", ")
	}
	before := now()
	select { // a daemon reacts to a change within milliseconds
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	if after := now(); after != before {
		t.Errorf("without a fault, %s became %s", before, after)
	}
}
