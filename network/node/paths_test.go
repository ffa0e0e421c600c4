package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// ipNetOf returns a prefix as netlink has it.
func ipNetOf(text string) *net.IPNet {
	p := netip.MustParsePrefix(text)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// neighbourNode is another node on the uplink's link: a network namespace with a VXLAN device, as flannel makes it.
type neighbourNode struct{ *sandbox.Host }

// newNeighbourNode connects node 7 to the uplink, and has it know this node.
func newNeighbourNode(t *testing.T, own netip.Prefix, mac net.HardwareAddr) *neighbourNode {
	t.Helper()
	host, err := sandbox.NewHost("node7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	up, err := netlink.LinkByName("uplink1")
	if err != nil {
		t.Fatal(err)
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: "to7", MasterIndex: up.Attrs().Index})
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(host.NetFd())
	if err := errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth)); err != nil {
		t.Fatal(err)
	}
	gateway := own.Addr().AsSlice()
	err = host.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		device := &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: "flannel.1", HardwareAddr: net.HardwareAddr{0x0e, 0, 0, 0, 0, 7}},
			VxlanId:   1, Port: 8472, SrcAddr: net.IPv4(172, 31, 0, 7),
		}
		pods := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: ipNetOf("10.5.7.0/24"), Scope: netlink.SCOPE_LINK} // as of a bridge
		err = errors.Join(
			netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNetOf("172.31.0.7/24")}), netlink.LinkSetUp(eth0), netlink.RouteAdd(pods), netlink.LinkAdd(device),
			netlink.AddrAdd(device, &netlink.Addr{IPNet: ipNetOf("10.5.7.0/32")}), netlink.LinkSetUp(device),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
		if err != nil {
			return err
		}
		index := device.Attrs().Index
		return errors.Join(
			netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: gateway, HardwareAddr: mac, State: netlink.NUD_PERMANENT}),
			netlink.NeighAppend(&netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: net.IPv4(172, 31, 0, 11),
				HardwareAddr: mac, State: netlink.NUD_PERMANENT}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNetOf(own.String()), Gw: gateway, Flags: int(netlink.FLAG_ONLINK)}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return &neighbourNode{host}
}

// TestPaths: a node knows whether it reaches another one, and says what is wrong with the way there.
func TestPaths(t *testing.T) {
	ownUplink(t)
	store := newMemStore()
	store.putConfig(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","SubnetMax":"10.5.200.0","Backend":{"Type":"vxlan"}}`)
	n := startNodeWith(t, store, t.TempDir(), func(o *Options) { o.PeerProbeInterval = 200 * time.Millisecond })
	s := n.waitState(t, status.Ready)
	mac, err := net.ParseMAC(s.Backend.Devices[0].MAC)
	if err != nil {
		t.Fatal(err)
	}
	other := newNeighbourNode(t, s.Lease.Subnets[0], mac)
	link := func(name string, do func(netlink.Link) error) {
		t.Helper()
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = do(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// expect waits for the reachability of the peer and for the reasons of problems, of which some cut the traffic.
	expect := func(what string, want status.ReachState, cut bool, codes ...status.Reason) (p status.Peer) {
		t.Helper()
		eventually(t, what, func() error {
			s, err := n.Status(t.Context())
			peers, peersErr := n.Peers(t.Context())
			if err := errors.Join(err, peersErr); err != nil {
				return err
			}
			if len(peers) != 1 {
				return fmt.Errorf("%d peers", len(peers))
			}
			p = peers[0]
			var lost []string
			for _, x := range s.Probes {
				for _, y := range x.Peers {
					if y.State == status.Unreachable {
						lost = append(lost, y.Key)
					}
					if y.Path != "vxlan" || y.Recent > 0 && (y.State == status.Unreachable && y.Lost == 0 || y.Lost > y.Recent) {
						return fmt.Errorf("%+v", y)
					}
				}
			}
			if named := slices.Equal(lost, []string{p.Key}); named != (want == status.Unreachable) || !named && len(lost) > 0 {
				return fmt.Errorf("the unreachable peers are %q", lost)
			}
			var got []status.Reason
			for _, x := range s.Problems {
				got = append(got, x.Code)
			}
			slices.Sort(got)
			state := status.Ready
			if len(codes) > 0 {
				state = status.Degraded
			}
			if p.Reach[0].State != want || len(s.Cut) > 0 != cut || s.State != state || !slices.Equal(slices.Compact(got), codes) {
				return fmt.Errorf("%+v, cut %v, state %s, problems %+v\n%s", p.Reach, s.Cut, s.State, s.Problems, n.log.String())
			}
			return nil
		})
		return p
	}

	key := store.put(vxlanLease(7))
	p := expect("reachable", status.Reachable, false)
	if p.Reach[0].RTT <= 0 || p.Reach[0].Since.IsZero() {
		t.Errorf("%+v", p.Reach)
	}
	cut := time.Now()
	link("to7", netlink.LinkSetDown)
	p = expect("the underlay is cut", status.Unreachable, true, status.AllUnreachable)
	if p.Reach[0].Since.Before(cut.Add(-time.Second)) {
		t.Errorf("%+v after a cut at %s", p.Reach, cut)
	}
	n.waitLog(t, "peers: none of the probed nodes answers over IPv4: node7 (172.31.0.7)")
	if e, err := n.Explain(t.Context(), netip.MustParseAddr("10.5.7.9")); err != nil || e.OK {
		t.Errorf("explained as good: %+v, %v", e, err)
	}
	link("to7", netlink.LinkSetUp)
	expect("the underlay is whole", status.Reachable, false)
	n.waitLog(t, "peers: problem resolved")

	// A host that answers no echo requests answers all the same.
	err = other.Do(func() error {
		const settings = "/proc/sys/net/ipv4/icmp_"
		return errors.Join(os.WriteFile(settings+"echo_ignore_all", []byte("1"), 0o644),
			os.WriteFile(settings+"ratelimit", []byte("0"), 0o644)) // one a second, which is enough for longer intervals
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := n.paths.Status().Totals[subnet.IPv4].Sent
	eventually(t, "more probes", func() error {
		if now := n.paths.Status().Totals[subnet.IPv4].Sent; now < sent+20 {
			return fmt.Errorf("%d probes", now-sent)
		}
		return nil
	})
	expect("no echo", status.Reachable, false)

	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Dst, rule.Type = unix.AF_INET, 100, ipNetOf("10.5.0.0/16"), nl.FR_ACT_BLACKHOLE
	if err := netlink.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	expect("a blackhole rule", status.Unreachable, true, status.AllUnreachable, status.PolicyRule)
	n.waitLog(t, "ip rule 100: from all to 10.5.0.0/16 blackhole")
	if err := netlink.RuleDel(rule); err != nil {
		t.Fatal(err)
	}
	expect("no rule", status.Reachable, false)

	second := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "uplink2"}}
	if err := netlink.LinkAdd(second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(second) })
	elsewhere := &netlink.Route{LinkIndex: second.Attrs().Index, Dst: ipNetOf("172.31.0.7/32"), Scope: netlink.SCOPE_LINK}
	if err := errors.Join(netlink.LinkSetUp(second), netlink.RouteAdd(elsewhere)); err != nil {
		t.Fatal(err)
	}
	expect("the public IP is routed elsewhere", status.Unreachable, true, status.AllUnreachable, status.UnderlayRoute)
	n.waitLog(t, "packets to the public IP of node7 (172.31.0.7) leave by uplink2, and not by the uplink uplink1")
	if err := netlink.RouteDel(elsewhere); err != nil {
		t.Fatal(err)
	}
	expect("routed by the uplink", status.Reachable, false)

	store.delete(key)
	eventually(t, "nobody to probe", func() error {
		if r := n.paths.Status().Results[subnet.IPv4]; len(r) > 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}
