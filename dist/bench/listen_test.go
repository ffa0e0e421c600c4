package bench

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// TestListen makes, changes and removes what one lease needs, and looks that the listener tells of each when it is whole and
// not before.
func TestListen(t *testing.T) {
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	n := &node{stop: make(chan struct{})}
	err = ns.Do(func() (err error) {
		n.listen, err = listen()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go n.listen.run(n.stop)
	defer func() {
		close(n.stop)
		<-n.listen.done
		unix.Close(n.listen.from.fd)
	}()
	told := n.listen.expect(entries(1, 2, ipv4(), 0))
	not := func(after string) error {
		select {
		case <-told:
			return errors.New("whole after " + after)
		default:
		}
		if n.listen.missing() == nil {
			return errors.New("nothing is missing after " + after)
		}
		return nil
	}
	e := absent(1, ipv4(), 0).Endpoints[0]
	gateway, remote := net.IP(e.Subnet.Addr().AsSlice()), net.IP(e.PublicIP.AsSlice())
	err = ns.Do(func() error {
		link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: 8472}
		a, err := netlink.ParseAddr("10.6.0.0/32")
		if err := errors.Join(err, netlink.LinkAdd(link), netlink.LinkSetUp(link), netlink.AddrAdd(link, a)); err != nil {
			return err
		}
		index := link.Attrs().Index
		neighbour := func(version byte) *netlink.Neigh {
			m := mac(1, version)
			return &netlink.Neigh{LinkIndex: index, IP: gateway, HardwareAddr: m[:], State: unix.NUD_PERMANENT}
		}
		fdb := func(version byte) *netlink.Neigh {
			m := mac(1, version)
			return &netlink.Neigh{LinkIndex: index, IP: remote, HardwareAddr: m[:], State: unix.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF}
		}
		route := &netlink.Route{LinkIndex: index, Gw: gateway, Flags: int(netlink.FLAG_ONLINK), Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(not("nothing"), netlink.NeighSet(fdb(0)), netlink.NeighSet(neighbour(0))); err != nil {
			return err
		}
		if err := errors.Join(not("FDB entry and neighbour"), netlink.RouteAdd(route)); err != nil {
			return err
		}
		<-told

		told = n.listen.expect(entries(1, 2, ipv4(), 1))
		if err := errors.Join(netlink.NeighSet(neighbour(1)), netlink.NeighSet(fdb(1))); err != nil {
			return err
		}
		<-told
		told = n.listen.expect(entries(1, 2, ipv4(), 1)) // it has been there
		<-told
		if err := netlink.NeighDel(fdb(0)); err != nil { // the old one goes: the new one is there still
			return err
		}

		var gone []entry
		for e := range entries(1, 2, ipv4(), 1) {
			gone = append(gone, e)
		}
		told = n.listen.expect(map[entry]network.MAC{}, gone...)
		if err := errors.Join(netlink.RouteDel(route), netlink.NeighDel(neighbour(1))); err != nil {
			return err
		}
		if err := errors.Join(not("route and neighbour went"), netlink.NeighDel(fdb(1))); err != nil {
			return err
		}
		<-told
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := n.listen.count(); got[unix.RTM_NEWROUTE] == 0 || got[unix.RTM_DELROUTE] == 0 {
		t.Errorf("messages by type: %v", got)
	}
}

// TestAbsent: no two leases share anything, with as many as there can be.
func TestAbsent(t *testing.T) {
	seen := map[any]int{}
	for i := range MaxLeases {
		l := absent(i, dual(), 0)
		for f, e := range l.Endpoints {
			for _, what := range []any{e.Subnet, e.PublicIP, [2]any{f, e.Data}} {
				if other, twice := seen[what]; twice {
					t.Fatalf("leases %d and %d share %v", other, i, what)
				}
				seen[what] = i
			}
		}
		if !netip.MustParsePrefix("10.0.0.0/8").Contains(l.Endpoints[0].Subnet.Addr()) {
			t.Fatalf("lease %d is outside the network: %v", i, l)
		}
	}
}
