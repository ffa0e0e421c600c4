package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Lookup asks the kernel what it does with an address. It has sockets of its own and does not use the tables, so that
// a dump of a large routing table delays nothing else. It is not safe for concurrent use.
type Lookup struct {
	handle *netlink.Handle
	raw    map[int]*nl.SocketHandle // for requests that the library lacks
}

// OpenLookup returns a Lookup in the network namespace of the calling goroutine's thread.
func OpenLookup() (*Lookup, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &Lookup{handle, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}, nil
}

// Close releases the sockets.
func (l *Lookup) Close() {
	l.handle.Close()
	l.raw[unix.NETLINK_ROUTE].Close()
}

// Route asks the kernel how it sends a packet to a. The error says that it cannot, and why.
func (l *Lookup) Route(a netip.Addr) (network.Hop, error) {
	routes, err := l.handle.RouteGet(a.AsSlice())
	if err != nil {
		return network.Hop{}, fmt.Errorf("no route to %s: %w", a, err)
	}
	if len(routes) == 0 {
		return network.Hop{}, fmt.Errorf("no route to %s", a)
	}
	r := routes[0]
	h := network.Hop{Link: l.linkName(r.LinkIndex), Local: r.Type == unix.RTN_LOCAL || r.Type == unix.RTN_BROADCAST}
	h.Broadcast = r.Type == unix.RTN_BROADCAST
	h.Gateway, h.Source = addrOf(r.Gw), addrOf(r.Src)
	return h, nil
}

// Shadowing returns the first route that is not selvage's and that the kernel takes for a in place of the one under
// key: it is more specific, or has a better metric. It is in the words of ip; ok is false if there is none in any
// table.
func (l *Lookup) Shadowing(a netip.Addr, key network.RouteKey) (route string, ok bool, err error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := l.handle.RouteListFiltered(int(familyOf(a)), all, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || int(r.Protocol) == network.RouteProtocol || !r.Dst.Contains(a.AsSlice()) {
			continue
		}
		length, _ := r.Dst.Mask.Size()
		if length > key.Prefix.Bits() || length == key.Prefix.Bits() && uint32(r.Priority) < key.Metric {
			return l.describe(r), true, nil
		}
	}
	return "", false, nil
}

// describe names a route in the words of ip.
func (l *Lookup) describe(r netlink.Route) string {
	bits, _ := r.Dst.Mask.Size()
	s := network.Shadow{
		Key:   network.RouteKey{Prefix: netip.PrefixFrom(addrOf(r.Dst.IP), bits), Metric: uint32(r.Priority)},
		Route: network.Route{Type: uint8(r.Type), Gateway: addrOf(r.Gw)},
	}
	if r.Type == unix.RTN_UNICAST {
		s.Route.Link = l.linkName(r.LinkIndex)
	}
	text := s.String()
	if r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_LOCAL {
		text += fmt.Sprintf(" table %d", r.Table)
	}
	return text
}

// LinkWith returns the name of the interface that has the address a; empty if there is none, or it cannot be read.
func (l *Lookup) LinkWith(a netip.Addr) string {
	addresses, err := l.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return ""
	}
	for _, x := range addresses {
		if addrOf(x.IP) == a {
			return l.linkName(x.LinkIndex)
		}
	}
	return ""
}

// How long a host on a local link may take to answer ARP or ND, and how often the kernel is asked whether it has.
const (
	answerWithin = 300 * time.Millisecond
	answerPoll   = 5 * time.Millisecond
)

// Answers reports whether a host with the address a answers ARP or ND on an interface, or did recently. If the kernel
// does not know, it is made to ask (NTF_USE, as ip neigh use does), and the answer is waited for at most 0.3 s. An
// error means that the kernel cannot be asked.
func (l *Lookup) Answers(a netip.Addr, link string) (bool, error) {
	dev, err := l.handle.LinkByName(link)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", link, err)
	}
	index := dev.Attrs().Index
	live, err := l.live(a, index)
	if live || err != nil {
		return live, err
	}
	use := &netlink.Neigh{LinkIndex: index, Family: int(familyOf(a)), IP: a.AsSlice(), Flags: netlink.NTF_USE}
	if err := l.handle.NeighSet(use); err != nil {
		return false, fmt.Errorf("resolve %s on %s: %w", a, link, err)
	}
	for start := time.Now(); time.Since(start) < answerWithin; time.Sleep(answerPoll) {
		if live, err = l.live(a, index); live || err != nil {
			return live, err
		}
	}
	return false, nil
}

// live reports whether the neighbour table has an address that the host answered for, or that needs no answer.
func (l *Lookup) live(a netip.Addr, link int) (bool, error) {
	const live = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT |
		unix.NUD_NOARP
	neighbours, err := l.handle.NeighList(link, int(familyOf(a)))
	if err != nil {
		return false, fmt.Errorf("list neighbours: %w", err)
	}
	answered := func(n netlink.Neigh) bool { return addrOf(n.IP) == a && n.State&live != 0 }
	return slices.ContainsFunc(neighbours, answered), nil
}

func (l *Lookup) linkName(index int) string {
	link, err := l.handle.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// addrOf returns the address that the library has as bytes; invalid for none.
func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
