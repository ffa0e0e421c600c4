package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// leaseIn is the lease of another node in 10.NET.0.0/16, with a VNI.
func leaseIn(net, n byte, vni uint32) subnet.Lease {
	l := vxlanLease(n)
	e := &l.Endpoints[subnet.IPv4]
	e.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, net, n, 0}), 24)
	e.Data = fmt.Sprintf(`{"VNI":%d,"VtepMAC":"02:00:00:00:%02x:%02x"}`, vni, net, n)
	return l
}

// complete says what is missing of a node's network with two peers.
func (r *runningNode) complete(t *testing.T, device string) error {
	s, err := r.Status(t.Context())
	if err != nil {
		return err
	}
	for kind, c := range s.Entries {
		if c.Pending > 0 {
			return fmt.Errorf("%s: %s: %+v", device, kind, c)
		}
	}
	if s.State != status.Ready || s.Peers.Programmed != 2 {
		return fmt.Errorf("%s: %s, %+v, %+v", device, s.State, s.Peers, s.Problems)
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if alias := link.Attrs().Alias; alias != r.scopeAlias(t) {
		return fmt.Errorf("%s has the alias %q", device, alias)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err == nil && len(routes) != 2 {
		err = fmt.Errorf("routes out of %s: %v, want two", device, routes)
	}
	return err
}

func (r *runningNode) scopeAlias(t *testing.T) string {
	s, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return network.NewScope(s.Prefix, s.VNI).Alias()
}

// nftTables are the names of selvage's tables of family inet.
func nftTables(t *testing.T) (names []string) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		if strings.HasPrefix(x.Name, "selvage") {
			names = append(names, x.Name)
		}
	}
	return names
}

// TestTwoNetworks runs two daemons in one network namespace for two networks on one UDP port. They were given one state
// directory. Faults on both are repaired, and neither undoes what the other one does.
func TestTwoNetworks(t *testing.T) {
	ownUplink(t)
	dir, stores := t.TempDir(), [2]*memStore{newMemStore(), newMemStore()}
	var nodes [2]*runningNode
	devices := [2]string{"flannel.1", "flannel.2"}
	t.Cleanup(func() {
		for _, name := range []string{"flannel.2", "flannel.4"} {
			if l, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(l) // it ends with the sandbox anyway
			}
		}
	})
	for i, prefix := range []string{"", "/second"} {
		net := byte(5 + i)
		stores[i].putConfig(fmt.Sprintf(`{"Network":"10.%d.0.0/16","SubnetMin":"10.%[1]d.100.0","EnableNFTables":true,`+
			`"Backend":{"Type":"vxlan","VNI":%d}}`, net, i+1))
		for n := range byte(2) {
			stores[i].put(leaseIn(net, 7+n, uint32(i+1)))
		}
		nodes[i] = startNodeOf(t, stores[i], dir, prefix, fmt.Sprintf("%d.env", i))
	}
	both := func(what string) {
		t.Helper()
		for i, n := range nodes {
			eventually(t, what, func() error {
				if err := n.complete(t, devices[i]); err != nil {
					return fmt.Errorf("%w; log:\n%s", err, n.log.String())
				}
				return nil
			})
		}
	}
	both("two networks")
	if nodes[0].StateDir == nodes[1].StateDir {
		t.Errorf("both daemons use the state directory %s", nodes[0].StateDir)
	}
	tag := network.NewScope("/second", 2).Tag()
	if got := fmt.Sprint(nftTables(t)); !strings.Contains(got, "selvage-vtep-"+tag) || !strings.Contains(got, "selvage-"+tag) ||
		!strings.Contains(got, "selvage-vtep ") && !strings.Contains(got, "selvage-vtep]") {
		t.Errorf("nf_tables has %s, want two tables of each network", got)
	}
	repairs := func() (total [2]int) {
		for i, n := range nodes {
			s, err := n.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			total[i] = s.Repairs.Total
		}
		return total
	}
	for i, device := range devices {
		before := repairs()
		for _, harm := range []func(netlink.Link) error{netlink.LinkDel, netlink.LinkSetDown} {
			link, err := netlink.LinkByName(device)
			if err != nil {
				t.Fatal(err)
			}
			if err := harm(link); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the repair is noticed", func() error {
				if repairs()[i] == before[i] {
					return fmt.Errorf("%s: no repair", device)
				}
				return nil
			})
			both("after a fault of " + device)
		}
		if after := repairs(); after[1-i] != before[1-i] {
			t.Errorf("after faults of %s, the other network has %d repairs", device, after[1-i]-before[1-i])
		}
	}
	for _, n := range nodes {
		n.kernel.RequestResync()
		notify(n.kernelChanged)
	}
	before := repairs()
	time.Sleep(200 * time.Millisecond) // longer than it takes to undo something, for something that shall not happen
	both("after a full resync")
	if after := repairs(); after != before {
		t.Errorf("repairs without a fault: %v, and before %v", after, before)
	}

	// A third daemon that is in the way of the others says of whom.
	for config, want := range map[string]string{
		`{"Network":"10.5.128.0/17","Backend":{"Type":"vxlan","VNI":3}}`: "overlaps 10.5.0.0/16 of another selvaged",
		`{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan","VNI":2}}`: "device flannel.2 belongs to another network of " +
			"selvage on this node, /second (VNI 2)",
	} {
		store := newMemStore()
		store.putConfig(config)
		third := startNodeOf(t, store, t.TempDir(), "/third", "subnet.env")
		third.waitLog(t, want)
		third.stop()
	}
	both("beside a third daemon")

	// The second network has another VNI after the next start: what it had goes, and nothing else does.
	nodes[1].stop()
	stores[1].putConfig(`{"Network":"10.6.0.0/16","SubnetMin":"10.6.100.0","EnableNFTables":true,"Backend":{"Type":"vxlan","VNI":4}}`)
	for n := range byte(2) {
		stores[1].put(leaseIn(6, 7+n, 4))
	}
	nodes[1], devices[1] = startNodeOf(t, stores[1], dir, "/second", "1.env"), "flannel.4"
	both("another VNI")
	eventually(t, "what is left of the old VNI", func() error {
		if _, err := netlink.LinkByName("flannel.2"); err == nil {
			return fmt.Errorf("flannel.2 exists")
		}
		if got := fmt.Sprint(nftTables(t)); strings.Contains(got, tag) {
			return fmt.Errorf("nf_tables has %s", got)
		}
		return nil
	})
	both("after the old VNI")
}
