package kernel_test

import (
	"context"
	"encoding/binary"
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
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
)

// patient is the limit of any wait.
const patient = 2 * time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(deleteVariable) != "" {
		deleteRoute()
	}
	os.Exit(sandbox.Run(m.Run))
}

const device = "flannel.1"

var (
	ownMAC  = network.MAC{0x0e, 0, 0, 0, 0, 1}
	nodeOwn = network.Owner{Name: "node"}
)

func ownState() network.State {
	return network.State{
		Links: []network.Item[string, network.Link]{{Key: device, Value: network.Link{
			Kind: network.KindVXLAN, Settings: network.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1")}, MTU: 1450, MAC: ownMAC,
			Alias: network.Alias, Up: true,
		}}},
		Addresses: []network.Item[network.AddressKey, network.Address]{
			{Key: network.AddressKey{Link: device, Prefix: netip.MustParsePrefix("10.5.1.0/32")}},
		},
	}
}

// style is how routes are made.
type style int

const (
	plain    style = iota
	byID           // by nexthop objects
	byIDBare       // and the kernel does not say for a route what its nexthop object says
)

func (s style) String() string {
	return [...]string{"plain", "nexthop objects", "nexthop_compat_mode 0"}[s]
}

// prepare makes the kernel as the style has it.
func (s style) prepare() error {
	if s != byIDBare {
		return nil
	}
	return os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte("0"), 0)
}

// peer returns the state for the i-th peer, i below 256.
func peer(i int, routes style) (network.Owner, network.State) {
	gateway := netip.AddrFrom4([4]byte{10, 5, byte(i), 0})
	mac := network.MAC{0x0e, 0, 0, 0, 1, byte(i)}
	prefix := netip.PrefixFrom(gateway, 24)
	s := network.State{
		FDB: []network.Item[network.FDBKey, network.FDB]{{
			Key:   network.FDBKey{Link: device, MAC: mac},
			Value: network.FDB{Remote: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Permanent: true},
		}},
		Neighbours: []network.Item[network.NeighbourKey, network.Neighbour]{{
			Key: network.NeighbourKey{Link: device, IP: gateway}, Value: network.Neighbour{MAC: mac, Permanent: true},
		}},
	}
	r := network.Route{Link: device, Gateway: gateway, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
	if routes != plain {
		r = s.Via(r)
	}
	s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: network.RouteKey{Prefix: prefix}, Value: r}}
	return network.Owner{Name: prefix.String()}, s
}

// wanted returns fresh tables that want the node's own state and that of the given number of peers.
func wanted(peers int, routes style) *network.Tables {
	t := network.NewTables()
	own := ownState()
	own.Sysctls = []network.Item[string, network.Sysctl]{
		{Key: "net/ipv4/ip_forward", Value: "1"}, {Key: "net/ipv4/conf/" + device + "/forwarding", Value: "1"},
	}
	t.Replace(nodeOwn, network.State{}, own)
	for i := range peers {
		o, s := peer(i+2, routes)
		t.Replace(o, network.State{}, s)
	}
	return t
}

// inNamespace runs f on a thread in a network namespace of its own, with loopback up.
func inNamespace(t *testing.T, f func(*sandbox.Net) error) {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() error { return f(ns) }); err != nil {
		t.Fatal(err)
	}
}

// node is tables, kernel and reconciler, as the daemon has them.
type node struct {
	*kernel.Kernel
	rec *network.Reconciler
}

func open(t *network.Tables) (*node, error) {
	k, err := kernel.Open(t)
	if err != nil {
		return nil, err
	}
	if err := k.Read(); err != nil {
		return nil, err
	}
	return &node{k, &network.Reconciler{Tables: t}}, nil
}

// pass runs one pass and fails on any failure.
func (n *node) pass() (network.Result, error) {
	r := n.rec.Pass(time.Now())
	for _, f := range r.Failures {
		return r, fmt.Errorf("%s %s: %w", f.Kind, f.Key, f.Err)
	}
	return r, nil
}

// verify reads the kernel afresh and reports whether it holds what is wanted and nothing else of ours.
func verify(peers int, routes style) error {
	t := wanted(peers, routes)
	n, err := open(t)
	if err != nil {
		return err
	}
	defer n.Close()
	if t.Pending() == 0 {
		return nil
	}
	return fmt.Errorf("pending: %+v", t.Counts())
}

// eachStyle runs f in a namespace of its own for each way of making routes.
func eachStyle(t *testing.T, f func(t *testing.T, ns *sandbox.Net, routes style) error) {
	t.Helper()
	for _, routes := range []style{plain, byID, byIDBare} {
		t.Run(routes.String(), func(t *testing.T) {
			inNamespace(t, func(ns *sandbox.Net) error { return errors.Join(routes.prepare(), f(t, ns, routes)) })
		})
	}
}

func TestProgramReadRemove(t *testing.T) {
	const peers = 20
	eachStyle(t, func(t *testing.T, _ *sandbox.Net, routes style) error {
		entries := 3 // a peer
		if routes != plain {
			entries = 4
		}
		n, err := open(wanted(peers, routes))
		if err != nil {
			return err
		}
		defer n.Close()
		r, err := n.pass()
		if err != nil {
			return err
		}
		if want := 2 + entries*peers; r.Set-len(r.Sysctls) != want || r.Removed != 0 {
			t.Errorf("first pass set %d and removed %d, want %d and 0", r.Set, r.Removed, want)
		}
		if err := verify(peers, routes); err != nil {
			t.Errorf("after the first pass: %v", err)
		}
		if r, err := n.pass(); err != nil || r.Set+r.Removed != 0 {
			t.Errorf("second pass: %+v, %v, want nothing to do", r, err)
		}
		// Half of the peers leave.
		for i := peers / 2; i < peers; i++ {
			o, s := peer(i+2, routes)
			n.rec.Tables.Replace(o, s, network.State{})
		}
		if r, err = n.pass(); err != nil || r.Removed != entries*peers/2 || r.Set != 0 {
			t.Errorf("removing half of the peers: %+v, %v, want %d removed", r, err, entries*peers/2)
		}
		return verify(peers/2, routes)
	})
}

func TestLinkLocalAndRouterAdvertisementsOff(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		n, err := open(wanted(0, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil || len(addrs) != 0 {
			t.Errorf("IPv6 addresses: %v, %v, want none", addrs, err)
		}
		ra, err := os.ReadFile("/proc/thread-self/net/../../../../proc/sys/net/ipv6/conf/" + device + "/accept_ra")
		if err == nil && string(ra) != "0\n" {
			t.Errorf("accept_ra is %q, want 0", ra)
		}
		v := link.(*netlink.Vxlan)
		if v.Learning || v.VtepDevIndex != 0 || v.UDPCSum {
			t.Errorf("learning %v, lower device %d, checksums %v, want false, 0, false", v.Learning, v.VtepDevIndex, v.UDPCSum)
		}
		return nil
	})
}

// TestRestartChangesNothing starts a second Kernel on what a first one made, and listens whether anything is notified.
func TestRestartChangesNothing(t *testing.T) {
	const peers = 5
	eachStyle(t, func(t *testing.T, ns *sandbox.Net, routes style) error {
		n, err := open(wanted(peers, routes))
		if err != nil {
			return err
		}
		if _, err := n.pass(); err != nil {
			return err
		}
		n.Close()
		stop, heard, err := listen(ns)
		if err != nil {
			return err
		}
		again, err := open(wanted(peers, routes))
		if err != nil {
			return err
		}
		defer again.Close()
		if r, err := again.pass(); err != nil || r.Set+r.Removed != 0 {
			t.Errorf("pass after a restart: %+v, %v, want nothing to do", r, err)
		}
		// A change of our own shows that the listener works, and ends what it is to hear.
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "last"}, VxlanId: 99}); err != nil {
			return err
		}
		for name := range heard {
			if name == "last" {
				break
			}
			t.Errorf("the restart changed %s", name)
		}
		stop()
		return nil
	})
}

// listen reports the devices that link notifications name, and "entry" for any other notification.
func listen(ns *sandbox.Net) (stop func(), heard chan string, err error) {
	done := make(chan struct{})
	heard = make(chan string, 1000)
	links, neighs, routes := make(chan netlink.LinkUpdate), make(chan netlink.NeighUpdate), make(chan netlink.RouteUpdate)
	if err := netlink.LinkSubscribe(links, done); err != nil {
		return nil, nil, err
	}
	if err := netlink.NeighSubscribe(neighs, done); err != nil {
		return nil, nil, err
	}
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		return nil, nil, err
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for links != nil || neighs != nil || routes != nil {
			select {
			case u, ok := <-links:
				if !ok {
					links = nil
					continue
				}
				heard <- u.Attrs().Name
			case u, ok := <-neighs:
				if !ok {
					neighs = nil
					continue
				}
				heard <- "neighbour " + u.IP.String()
			case u, ok := <-routes:
				if !ok {
					routes = nil
					continue
				}
				heard <- "route " + u.Dst.String()
			}
		}
	}()
	return func() { close(done); <-finished }, heard, nil
}

// fault is something done behind the daemon's back.
type fault struct {
	name    string
	do      func(link netlink.Link) error
	remakes bool // the device cannot but be made anew
	byID    bool // only where routes go by nexthop objects
}

func dst(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func faults() []fault {
	mac := net.HardwareAddr{0x0e, 0, 0, 0, 1, 2}
	fdb := func(l netlink.Link, mac net.HardwareAddr, ip string, state int) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: state, HardwareAddr: mac, IP: net.ParseIP(ip).To4()}
	}
	arp := func(l netlink.Link, ip string, mac net.HardwareAddr, state int) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_INET, State: state, HardwareAddr: mac, IP: net.ParseIP(ip).To4()}
	}
	route := func(l netlink.Link, to, via string) *netlink.Route {
		return &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst(to), Gw: net.ParseIP(via), Flags: int(netlink.FLAG_ONLINK)}
	}
	return []fault{
		// Then there is no IPv6 on it; with the old MTU the kernel gives it IPv6 anew, as any device has it.
		{name: "MTU too small for IPv6", do: func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1279) }},
		{name: "route deleted", do: func(l netlink.Link) error { return netlink.RouteDel(&netlink.Route{Dst: dst("10.5.2.0/24")}) }},
		{name: "route replaced by another next hop", do: func(l netlink.Link) error { return netlink.RouteReplace(route(l, "10.5.2.0/24", "10.5.3.0")) }},
		{name: "route replaced by a blackhole", do: func(l netlink.Link) error {
			return netlink.RouteReplace(&netlink.Route{Dst: dst("10.5.2.0/24"), Type: unix.RTN_BLACKHOLE})
		}},
		{name: "another route put before ours", do: func(l netlink.Link) error {
			r := route(l, "10.5.2.0/24", "10.5.3.0")
			r.Protocol = unix.RTPROT_STATIC
			return prepend(r)
		}},
		{name: "another route put after ours", do: func(l netlink.Link) error { return netlink.RouteAppend(route(l, "10.5.2.0/24", "10.5.3.0")) }},
		{name: "stale route added", do: func(l netlink.Link) error { return netlink.RouteAdd(route(l, "10.5.200.0/24", "10.5.200.0")) }},
		{name: "route without a gateway added", do: func(l netlink.Link) error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst("10.5.201.0/24"), Scope: netlink.SCOPE_LINK})
		}},
		{name: "nexthop deleted", byID: true, do: func(netlink.Link) error { return nexthop(unix.RTM_DELNEXTHOP, "10.5.2.0", 0) }},
		{name: "nexthop with another gateway", byID: true, do: func(l netlink.Link) error {
			return nexthop(unix.RTM_NEWNEXTHOP, "10.5.2.0", 0, nlAttr(unix.NHA_GATEWAY, []byte{10, 5, 3, 0}), oif(l))
		}},
		{name: "nexthop of another's protocol", byID: true, do: func(l netlink.Link) error {
			return nexthop(unix.RTM_NEWNEXTHOP, "10.5.2.0", unix.RTPROT_STATIC, nlAttr(unix.NHA_GATEWAY, []byte{10, 5, 2, 0}), oif(l))
		}},
		{name: "nexthop made a blackhole", byID: true, do: func(netlink.Link) error {
			lo := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "lo"}} // blackholes are there
			return errors.Join(netlink.LinkSetUp(lo), nexthop(unix.RTM_NEWNEXTHOP, "10.5.2.0", 0, nlAttr(unix.NHA_BLACKHOLE, nil)))
		}},
		{name: "nexthop replaced by a group", byID: true, do: func(l netlink.Link) error {
			group := append(binary.NativeEndian.AppendUint32(nil, uint32(network.NexthopIDOf(netip.MustParseAddr("10.5.3.0")))), 0, 0, 0, 0)
			return errors.Join(nexthop(unix.RTM_DELNEXTHOP, "10.5.2.0", 0), nexthop(unix.RTM_NEWNEXTHOP, "10.5.2.0", 0, nlAttr(unix.NHA_GROUP, group)))
		}},
		{name: "stale nexthop added", byID: true, do: func(l netlink.Link) error {
			return nexthop(unix.RTM_NEWNEXTHOP, "10.5.200.0", network.RouteProtocol, nlAttr(unix.NHA_GATEWAY, []byte{10, 5, 200, 0}), oif(l))
		}},
		{name: "route by another's nexthop", byID: true, do: func(l netlink.Link) error {
			err := nexthop(unix.RTM_NEWNEXTHOP, "0.0.0.7", unix.RTPROT_STATIC, nlAttr(unix.NHA_GATEWAY, []byte{10, 5, 3, 0}), oif(l))
			return errors.Join(err, routeByNexthop("10.5.2.0/24", 7))
		}},
		{name: "FDB entry deleted", do: func(l netlink.Link) error { return netlink.NeighDel(fdb(l, mac, "192.0.2.2", 0)) }},
		{name: "FDB entry with a wrong remote", do: func(l netlink.Link) error { return netlink.NeighSet(fdb(l, mac, "192.0.2.99", unix.NUD_PERMANENT)) }},
		{name: "FDB entry made dynamic", do: func(l netlink.Link) error { return netlink.NeighSet(fdb(l, mac, "192.0.2.2", unix.NUD_REACHABLE)) }},
		{name: "stale FDB entry added", do: func(l netlink.Link) error {
			return netlink.NeighSet(fdb(l, net.HardwareAddr{0x0e, 9, 9, 9, 9, 9}, "192.0.2.98", unix.NUD_PERMANENT))
		}},
		{name: "neighbour deleted", do: func(l netlink.Link) error { return netlink.NeighDel(arp(l, "10.5.2.0", nil, 0)) }},
		{name: "neighbour with a wrong MAC", do: func(l netlink.Link) error {
			return netlink.NeighSet(arp(l, "10.5.2.0", net.HardwareAddr{0x0e, 9, 9, 9, 9, 9}, unix.NUD_PERMANENT))
		}},
		{name: "neighbour made reachable", do: func(l netlink.Link) error { return netlink.NeighSet(arp(l, "10.5.2.0", mac, unix.NUD_REACHABLE)) }},
		{name: "stale neighbour added", do: func(l netlink.Link) error { return netlink.NeighSet(arp(l, "10.5.200.0", mac, unix.NUD_PERMANENT)) }},
		{name: "address removed", do: func(l netlink.Link) error {
			return netlink.AddrDel(l, &netlink.Addr{IPNet: dst("10.5.1.0/32")})
		}},
		{name: "address added", do: func(l netlink.Link) error { return netlink.AddrAdd(l, &netlink.Addr{IPNet: dst("10.5.77.0/32")}) }},
		{name: "forwarding off", do: func(netlink.Link) error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }},
		{name: "forwarding off on the device", do: func(netlink.Link) error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/forwarding", []byte("0"), 0)
		}},
		{name: "device down", do: netlink.LinkSetDown},
		{name: "device down and up", do: func(l netlink.Link) error { return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetUp(l)) }},
		{name: "device deleted", do: netlink.LinkDel, remakes: true},
		{name: "device's MAC changed", do: func(l netlink.Link) error {
			return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{0x0e, 7, 7, 7, 7, 7})
		}},
		{name: "device's MTU changed", do: func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }},
		{name: "device enslaved to a bridge", do: func(l netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "foreign"
			bridge := &netlink.Bridge{LinkAttrs: attrs}
			return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetMaster(l, bridge))
		}},
		{name: "device's alias changed", do: func(l netlink.Link) error { return netlink.LinkSetAlias(l, "mine") }},
		{name: "device renamed", do: func(l netlink.Link) error {
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "other"), netlink.LinkSetUp(l))
		}},
		{name: "device replaced with another local address and VNI", do: func(l netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Alias = device, network.Alias
			return errors.Join(netlink.LinkDel(l), netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 7, Port: 8472}), aliased(device))
		}, remakes: true},
		{name: "device replaced with learning and another local address", do: func(l netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = device
			return errors.Join(netlink.LinkDel(l), netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472, Learning: true, SrcAddr: net.IPv4(192, 0, 2, 77)}))
		}, remakes: true},
	}
}

// nexthop sends a request about the nexthop object whose number is that address.
func nexthop(typ int, id string, protocol uint8, attrs ...*nl.RtAttr) error {
	flags := unix.NLM_F_ACK
	family := uint8(unix.AF_UNSPEC)
	if typ == unix.RTM_NEWNEXTHOP {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	header := make([]byte, 8)
	for _, a := range attrs {
		switch a.Type {
		case unix.NHA_GATEWAY:
			family = unix.AF_INET
			binary.NativeEndian.PutUint32(header[4:], unix.RTNH_F_ONLINK)
		case unix.NHA_BLACKHOLE:
			family = unix.AF_INET
		}
	}
	header[0], header[2] = family, protocol
	r := nl.NewNetlinkRequest(typ, flags)
	for _, a := range append([]*nl.RtAttr{nlAttr(unix.NHA_ID, nl.Uint32Attr(uint32(network.NexthopIDOf(netip.MustParseAddr(id)))))}, attrs...) {
		header = append(header, a.Serialize()...)
	}
	r.AddRawData(header)
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// routeByNexthop does what `ip route replace TO nhid ID` does.
func routeByNexthop(to string, id uint32) error {
	r := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	n := dst(to)
	ones, _ := n.Mask.Size()
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = unix.AF_INET, uint8(ones)
	r.AddData(msg)
	r.AddData(nlAttr(unix.RTA_DST, n.IP.To4()))
	r.AddData(nlAttr(30, nl.Uint32Attr(id))) // RTA_NH_ID
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func nlAttr(typ int, data []byte) *nl.RtAttr { return nl.NewRtAttr(typ, data) }

func oif(l netlink.Link) *nl.RtAttr {
	return nlAttr(unix.NHA_OIF, nl.Uint32Attr(uint32(l.Attrs().Index)))
}

func aliased(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetAlias(l, network.Alias)
}

// prepend adds a route before those that are there already, as `ip route prepend` does: neither exclusive nor appended.
func prepend(r *netlink.Route) error {
	return netlink.RouteAddEcmp(r)
}

// TestFaultsAreRepaired does each fault to a node whose loop runs, and waits until a fresh read finds all right.
func TestFaultsAreRepaired(t *testing.T) {
	for _, routes := range []style{plain, byID, byIDBare} {
		for _, f := range faults() {
			if f.byID && routes == plain {
				continue
			}
			t.Run(routes.String()+"/"+f.name, func(t *testing.T) {
				defer goleak.VerifyNone(t)
				inNamespace(t, func(ns *sandbox.Net) error { return errors.Join(routes.prepare(), repairs(t, ns, f, routes)) })
			})
		}
	}
}

func repairs(t *testing.T, ns *sandbox.Net, f fault, routes style) error {
	const peers = 3
	n, err := open(wanted(peers, routes))
	if err != nil {
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithCancel(t.Context())
	wake := make(chan struct{}, 1)
	ready, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		watched <- ns.Do(func() error {
			return n.Watch(ctx, func() { close(ready) }, func() {
				select {
				case wake <- struct{}{}:
				default:
				}
			})
		})
	}()
	defer func() {
		cancel()
		if err := <-watched; err != nil {
			t.Error(err)
		}
	}()
	<-ready
	if err := errors.Join(n.Read()); err != nil {
		return err
	}
	if _, err := n.pass(); err != nil {
		return err
	}
	if err := verify(peers, routes); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	if err := f.do(link); err != nil {
		return fmt.Errorf("do the fault: %w", err)
	}
	broken := verify(peers, routes)
	deadline := time.After(patient)
	var retry <-chan time.Time
	for {
		select {
		case <-wake:
		case <-retry:
		case <-deadline:
			return fmt.Errorf("not repaired: %v (right after the fault: %v)", verify(peers, routes), broken)
		}
		if err := n.Observe(); err != nil {
			return err
		}
		r := n.rec.Pass(time.Now())
		if !r.Retry.IsZero() {
			retry = time.After(time.Until(r.Retry))
		}
		if len(r.Failures) == 0 && verify(peers, routes) == nil {
			break
		}
	}
	if now, err := netlink.LinkByName(device); err != nil || !f.remakes && now.Attrs().Index != index {
		t.Errorf("the device was made anew: %v, %v", now, err)
	}
	if broken == nil {
		t.Error("the fault broke nothing that a fresh read sees")
	}
	return nil
}

// TestForeignIsLeftAlone has things of others all around ours.
func TestForeignIsLeftAlone(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "docker0"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		attrs.Name = "vxlan42"
		other := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 42, Port: 4789}
		err := errors.Join(
			netlink.LinkAdd(bridge), netlink.LinkAdd(other), netlink.LinkSetUp(bridge), netlink.LinkSetUp(other),
			netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 17, 0, 1), Mask: net.CIDRMask(16, 32)}}),
			netlink.RouteAdd(&netlink.Route{Dst: dst("203.0.113.0/24"), Gw: net.IPv4(172, 17, 0, 9)}),
			netlink.NeighSet(&netlink.Neigh{LinkIndex: other.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF,
				State: unix.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 2, 2, 2, 2, 2}, IP: net.IPv4(172, 17, 0, 4)}),
			netlink.NeighSet(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, Family: unix.AF_INET,
				State: unix.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 2, 2, 2, 2, 3}, IP: net.IPv4(172, 17, 0, 5)}),
		)
		if err != nil {
			return err
		}
		before, err := foreign()
		if err != nil {
			return err
		}
		n, err := open(wanted(3, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		n.rec.Tables.Replace(nodeOwn, ownState(), network.State{})
		for i := range 3 {
			o, s := peer(i+2, byID)
			n.rec.Tables.Replace(o, s, network.State{})
		}
		if _, err := n.pass(); err != nil {
			return err
		}
		if _, err := netlink.LinkByName(device); err == nil {
			t.Errorf("%s is still there", device)
		}
		after, err := foreign()
		if err != nil {
			return err
		}
		if !slices.Equal(before, after) {
			t.Errorf("foreign state changed:\nbefore %q\nafter  %q", before, after)
		}
		return nil
	})
}

// foreign dumps everything in the namespace as text.
func foreign() ([]string, error) {
	var dump []string
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		dump = append(dump, fmt.Sprint("link ", l.Attrs().Name, l.Attrs().Flags, l.Attrs().MTU, l.Attrs().Alias))
		for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
			neighs, err := netlink.NeighList(l.Attrs().Index, family)
			if err != nil {
				return nil, err
			}
			for _, x := range neighs {
				group := len(x.HardwareAddr) > 0 && x.HardwareAddr[0]&1 != 0 // the kernel's own, which comes a moment after a device
				if x.State&unix.NUD_PERMANENT != 0 && !group {               // the rest comes and goes by itself
					dump = append(dump, fmt.Sprint("neighbour ", l.Attrs().Name, x.Family, x.IP, x.HardwareAddr, x.Flags))
				}
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	for _, r := range routes {
		dump = append(dump, "route "+r.String())
	}
	return dump, err
}

func TestForeignDeviceInTheWay(t *testing.T) {
	tests := []struct {
		name  string
		there netlink.Link
	}{
		{"a bridge of the name", &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: device}}},
		{"a VXLAN device of the name with another VNI", &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: device}, VxlanId: 9, Port: 8472}},
		{"a VXLAN device of another name with the VNI", &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "theirs"}, VxlanId: 1, Port: 8472}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func(*sandbox.Net) error {
				if err := netlink.LinkAdd(tt.there); err != nil {
					return err
				}
				n, err := open(wanted(1, byID))
				if err != nil {
					return err
				}
				defer n.Close()
				if _, err := n.pass(); !errors.Is(err, network.ErrForeign) {
					t.Errorf("error %v, want ErrForeign", err)
				}
				l, err := netlink.LinkByIndex(tt.there.Attrs().Index)
				if err != nil || l.Attrs().Name != tt.there.Attrs().Name || l.Attrs().Alias != "" {
					t.Errorf("the foreign device is not as it was: %v, %v", l, err)
				}
				// When it is gone, ours takes its place.
				if err := netlink.LinkDel(tt.there); err != nil {
					return err
				}
				if err := n.Read(); err != nil {
					return err
				}
				if _, err := n.rec.Pass(time.Now().Add(time.Minute)), error(nil); err != nil {
					return err
				}
				return verify(1, byID)
			})
		})
	}
}

func TestConnectedRouteIsNotReplaced(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "cni0"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 5, 2, 1), Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.AddrAdd(bridge, addr), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		n, err := open(wanted(1, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); !errors.Is(err, network.ErrForeign) {
			t.Errorf("error %v, want ErrForeign: cni0 holds 10.5.2.0/24", err)
		}
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: dst("10.5.2.0/24")}, netlink.RT_FILTER_DST)
		if err != nil || len(routes) != 1 || routes[0].LinkIndex != bridge.Attrs().Index {
			t.Errorf("routes to 10.5.2.0/24: %v, %v, want the connected one alone", routes, err)
		}
		return nil
	})
}

// TestFlannelDeviceIsTakenOver: flannel's device has no alias, is bound to a lower device and has routes of protocol
// boot.
func TestFlannelDeviceIsTakenOver(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		v := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472, SrcAddr: net.IPv4(192, 0, 2, 1)}
		err := errors.Join(netlink.LinkAdd(v), netlink.LinkSetUp(v), netlink.AddrAdd(v, &netlink.Addr{IPNet: dst("10.5.1.0/32")}), netlink.RouteAdd(&netlink.Route{
			LinkIndex: v.Attrs().Index, Dst: dst("10.5.2.0/24"), Gw: net.IPv4(10, 5, 2, 0), Flags: int(netlink.FLAG_ONLINK),
		}), netlink.RouteAdd(&netlink.Route{
			LinkIndex: v.Attrs().Index, Dst: dst("10.5.66.0/24"), Gw: net.IPv4(10, 5, 66, 0), Flags: int(netlink.FLAG_ONLINK),
		}))
		if err != nil {
			return err
		}
		n, err := open(wanted(1, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		l, err := netlink.LinkByName(device)
		if err != nil || l.Attrs().Index != v.Attrs().Index {
			t.Errorf("the device was made anew: %v, %v", l, err)
		}
		return verify(1, byID)
	})
}
