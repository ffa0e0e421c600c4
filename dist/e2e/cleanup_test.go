package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestCleanup takes everything off a node, in each mode of the packet filter: not while the daemon runs, not in a dry run, and
// nothing that is somebody else's.
func TestCleanup(t *testing.T) {
	for _, mode := range []struct {
		name, iptables string
		nftables       lab.NFTables
	}{{"nftables", "none", lab.NFTablesOn}, {"iptables-nft", "nft", lab.NFTablesOff}, {"iptables-legacy", "legacy", lab.NFTablesOff}} {
		t.Run(mode.name, func(t *testing.T) {
			families := []subnet.Family{subnet.IPv4, subnet.IPv6}
			l := start(t, lab.Options{
				Nodes: 2, Families: families, IPTables: mode.iptables, Config: lab.NetworkConfig(families, `{"Type":"vxlan"}`, mode.nftables),
			})
			n := l.Nodes()[0]
			ctx := testctx.New(t)
			// A bridge of the pods has the gateway address. One without it, and one with a port, are not touched.
			subnet, err := n.Subnet()
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Do(func() error {
				return errors.Join(addBridge("cni0", subnet.Subnets[0], false), addBridge("theirs", netip.Prefix{}, false),
					addBridge("used", subnet.Subnets[1], true), os.WriteFile("/var/lib/selvage/theirs", nil, 0o600),
					os.WriteFile("/var/lib/selvage/wireguard.secret", nil, 0o600)) // of an earlier network config
			}); err != nil {
				t.Fatal(err)
			}
			cleanup := func(args ...string) string {
				t.Helper()
				out, err := selvaged(ctx, t, n, append([]string{"cleanup"}, args...)...)
				if err != nil {
					t.Fatalf("cleanup %v: %v: %s", args, err, out)
				}
				return out
			}
			if out, err := selvaged(ctx, t, n, "cleanup"); err == nil || !strings.Contains(out, "stop it first") {
				t.Fatalf("while the daemon runs: %v: %s", err, out)
			}
			if err := n.Stop(ctx); err != nil {
				t.Fatal(err)
			}
			would := strings.ReplaceAll(cleanup("--dry-run"), "would remove ", "")
			if again := strings.ReplaceAll(cleanup("--dry-run"), "would remove ", ""); again != would {
				t.Errorf("a dry run changed something:\n%s\nand then\n%s", would, again)
			}
			for _, what := range []string{"link flannel.1", "link flannel-v6.1", "bridge cni0\n", "selvage-vtep", "/run/flannel/subnet.env", "/run/flannel/subnet.env.attachments", "/var/lib/selvage/node.json", "/var/lib/selvage/wireguard.secret", "/var/lib/selvage/backend.json"} {
				if !strings.Contains(would, what) {
					t.Errorf("%s is not among what would be removed:\n%s", what, would)
				}
			}
			rules := "table nat: chain SELVAGE-POSTRTG"
			switch mode.name {
			case "nftables":
				rules = "table inet selvage\n"
			case "iptables-legacy":
				rules = "legacy table nat: chain SELVAGE-POSTRTG"
			}
			if !strings.Contains(would, rules) {
				t.Errorf("%q is not among what would be removed:\n%s", rules, would)
			}
			only := cleanup("--rules", "--dry-run")
			if !strings.Contains(only, strings.TrimSpace(rules)) || !strings.Contains(only, "selvage-vtep") ||
				strings.Contains(only, "link ") || strings.Contains(only, "/var/lib") {
				t.Errorf("of the rules alone would be removed\n%s", only)
			}
			if removed := strings.ReplaceAll(cleanup(), "removed ", ""); removed != would {
				t.Errorf("removed\n%s\nand would have\n%s", removed, would)
			}
			if out := cleanup(); out != "" {
				t.Errorf("there was more to be removed:\n%s", out)
			}
			err = n.Do(func() error {
				links, err := netlink.LinkList()
				var names []string
				for _, link := range links {
					names = append(names, link.Attrs().Name)
				}
				slices.Sort(names)
				if want := []string{"eth0", "lo", "peer", "port", "theirs", "used"}; !slices.Equal(names, want) {
					t.Errorf("left are the devices %q, want %q", names, want)
				}
				_, theirs := os.Stat("/var/lib/selvage/theirs")
				return errors.Join(err, theirs)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// addBridge adds a bridge with an address, if it is valid, and a port.
func addBridge(name string, address netip.Prefix, port bool) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	if address.IsValid() {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}}
		if err := netlink.AddrAdd(bridge, a); err != nil {
			return err
		}
	}
	if !port {
		return nil
	}
	return netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "port", MasterIndex: bridge.Index}, PeerName: "peer",
	})
}

// selvaged runs a command of selvaged's on a node, and returns what it says.
func selvaged(ctx context.Context, t *testing.T, n *lab.Node, args ...string) (string, error) {
	t.Helper()
	daemon, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	err = n.Do(func() (err error) {
		out, err = exec.CommandContext(ctx, daemon, args...).CombinedOutput()
		return err
	})
	return string(out), err
}
