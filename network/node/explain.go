package node

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// explain says how this node reaches an address, step by step as a packet goes.
func (n *node) explain(a netip.Addr) status.Explanation {
	e := &explanation{node: n, Explanation: status.Explanation{Address: a, OK: true, Steps: []status.Step{}}}
	f := subnet.FamilyOf(a)
	switch {
	case n.backend == nil:
		e.verdict(false, "this node does not know the network yet: see selvaged status")
	case !n.config.Ranges[f].Enabled():
		e.verdict(false, fmt.Sprintf("the network config has %s off", f))
	case !n.config.Ranges[f].Network.Contains(a):
		e.outside(a)
	case n.subnets[f].IsValid() && n.subnets[f].Contains(a):
		e.here(a)
	default:
		e.elsewhere(a, f)
	}
	return e.Explanation
}

type explanation struct {
	*node
	status.Explanation
}

// verdict sets the sentence that says it all; the first one that is bad stays.
func (e *explanation) verdict(ok bool, text string) {
	if !e.OK {
		return
	}
	e.OK, e.Verdict = ok, text
}

func (e *explanation) step(kind, text string, mark status.Mark, note string) {
	e.Steps = append(e.Steps, status.Step{Kind: kind, Text: text, Mark: mark, Note: note})
}

// way is what the kernel answers when asked for the route to an address.
type way struct {
	link    string
	gateway netip.Addr
	text    string
	local   bool // the address is this node's own, or a broadcast to it
}

// look asks the kernel how it sends a packet to an address.
func (e *explanation) look(a netip.Addr) (way, error) {
	routes, err := e.kernel.Handle().RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return way{}, fmt.Errorf("no route to %s: %w", a, err)
	}
	r := routes[0]
	w := way{local: r.Type == unix.RTN_LOCAL || r.Type == unix.RTN_BROADCAST}
	if link, err := e.kernel.Handle().LinkByIndex(r.LinkIndex); err == nil {
		w.link = link.Attrs().Name
	}
	w.text = "dev " + w.link
	if g, ok := netip.AddrFromSlice(r.Gw); ok {
		w.gateway = g.Unmap()
		w.text = "via " + w.gateway.String() + " " + w.text
	}
	if s, ok := netip.AddrFromSlice(r.Src); ok {
		w.text += " src " + s.Unmap().String()
	}
	return w, nil
}

func (e *explanation) filterMark() status.Mark {
	if e.filterStatus().InForce {
		return status.Right
	}
	return status.Missing
}

// elsewhere explains an address of another node's subnet.
func (e *explanation) elsewhere(a netip.Addr, f subnet.Family) {
	lease, ok := e.leaseOf(a)
	if !ok {
		e.nobodys(a)
		return
	}
	who := nodeName(lease.Lease, f)
	want := ofFamily(wanted(e.backend, &lease.Lease), f)
	before := len(e.Steps)
	e.wantedSteps(want)
	right := true
	for _, s := range e.Steps[before:] {
		right = right && s.Mark == status.Right
	}
	if !right {
		e.verdict(false, fmt.Sprintf("%s is of %s, and not all that leads there is in place", a, who))
	}
	e.actual(a, want, who)
	e.device(want)
	if public := lease.Endpoints[f].PublicIP; public.IsValid() {
		if w, err := e.look(public); err != nil {
			e.step("uplink", public.String(), status.Missing, err.Error())
			e.verdict(false, fmt.Sprintf("%s is of %s, and this node has no route to its public IP %s", a, who, public))
		} else {
			e.step("uplink", fmt.Sprintf("%s %s", public, w.text), status.Note, "to "+who)
		}
	}
	e.step("filter", "inside the overlay: not masqueraded", e.filterMark(), e.filterStatus().Mode)
	for _, foreign := range e.filterStatus().Foreign {
		e.step("filter", foreign, status.Foreign, "")
		e.verdict(false, fmt.Sprintf("%s is of %s, and somebody's packet filter on this node drops what is for it", a, who))
	}
	path := "directly, by " + e.uplink.Name
	if len(want.Routes) > 0 && want.Routes[0].Value.Link != e.uplink.Name {
		path = "by VXLAN, " + want.Routes[0].Value.Link
	}
	e.verdict(true, fmt.Sprintf("%s is of %s: %s", a, who, path))
}

// leaseOf finds the peer that has an address, and says which other leases name it.
func (e *explanation) leaseOf(a netip.Addr) (l subnet.Member, ok bool) {
	for _, f := range e.view.Lookup(a) {
		if f.Why != nil {
			e.step("lease", f.Key, status.Foreign, "not let in: "+f.Why.Error())
			continue
		}
		e.step("lease", f.Key, status.Right, f.NodeName)
		l, ok = f.Member, true
	}
	for key, g := range e.grace {
		if !ok && g.lease.Endpoints[subnet.FamilyOf(a)].Subnet.Contains(a) {
			e.step("lease", key, status.Missing, "gone from etcd; kept until "+g.until.Format("15:04:05"))
			l, ok = subnet.Member{Lease: g.lease, Key: key}, true
		}
	}
	return l, ok
}

// wantedSteps says of each entry whether it is there.
func (e *explanation) wantedSteps(s network.State) {
	t := e.tables
	for _, x := range s.Routes {
		wantedStep(e, "route", t.Routes, x, func(v network.Route) (s network.State) {
			s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: x.Key, Value: v}}
			return s
		})
	}
	for _, x := range s.Nexthops {
		wantedStep(e, "nexthop", t.Nexthops, x, func(v network.Nexthop) (s network.State) {
			s.Nexthops = []network.Item[network.NexthopID, network.Nexthop]{{Key: x.Key, Value: v}}
			return s
		})
	}
	for _, x := range s.Neighbours {
		wantedStep(e, "neighbour", t.Neighbours, x, func(v network.Neighbour) (s network.State) {
			s.Neighbours = []network.Item[network.NeighbourKey, network.Neighbour]{{Key: x.Key, Value: v}}
			return s
		})
	}
	for _, x := range s.FDB {
		wantedStep(e, "fdb", t.FDB, x, func(v network.FDB) (s network.State) {
			s.FDB = []network.Item[network.FDBKey, network.FDB]{{Key: x.Key, Value: v}}
			return s
		})
	}
}

// wantedStep says of one entry whether it is there; alone returns a state that holds nothing else, for its text.
func wantedStep[K, V comparable](e *explanation, kind string, t *network.Table[K, V], x network.Item[K, V], alone func(V) network.State) {
	c := t.Get(x.Key)
	mark, note := status.Right, ""
	if !c.Present || c.Have != x.Value {
		mark = status.Missing
		if c.Present {
			note = "there is: " + strings.Join(alone(c.Have).Commands(), "; ")
		}
	}
	for _, line := range alone(x.Value).Commands() {
		e.step(kind, line, mark, note)
	}
}

// actual compares what the kernel does with what is wanted: somebody's more specific route, or one with a better metric, or
// a rule of policy routing, goes first.
func (e *explanation) actual(a netip.Addr, want network.State, who string) {
	if len(want.Routes) == 0 {
		return
	}
	w, err := e.look(a)
	link := want.Routes[0].Value.Link
	switch {
	case err != nil:
		e.step("route", fmt.Sprintf("the kernel: no route to %s", a), status.Foreign, e.inTheWay(a, want))
		e.verdict(false, fmt.Sprintf("%s is of %s, and a route of somebody else's keeps packets from it", a, who))
	case w.link != link:
		e.step("route", fmt.Sprintf("the kernel: %s %s", a, w.text), status.Foreign, e.inTheWay(a, want))
		e.verdict(false, fmt.Sprintf("%s is of %s, and a route of somebody else's sends it out of %s", a, who, w.link))
	default:
		e.step("route", fmt.Sprintf("the kernel: %s %s", a, w.text), status.Right, "")
	}
}

// inTheWay names the route of somebody else's that goes before ours.
func (e *explanation) inTheWay(a netip.Addr, want network.State) string {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := e.kernel.Handle().RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "look at ip route and ip rule"
	}
	for _, r := range routes {
		if r.Dst == nil || int(r.Protocol) == network.RouteProtocol || !r.Dst.Contains(a.AsSlice()) {
			continue
		}
		if length, _ := r.Dst.Mask.Size(); length > want.Routes[0].Key.Prefix.Bits() ||
			length == want.Routes[0].Key.Prefix.Bits() && uint32(r.Priority) < want.Routes[0].Key.Metric {
			return "by the " + e.routeText(r)
		}
	}
	return "look at ip rule: it is in no table of routes"
}

// routeText names a route of somebody else's, in the words of ip.
func (e *explanation) routeText(r netlink.Route) string {
	a := network.Shadow{Route: network.Route{Type: uint8(r.Type)}}
	to, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	a.Key = network.RouteKey{Prefix: netip.PrefixFrom(to.Unmap(), bits), Metric: uint32(r.Priority)}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		a.Route.Gateway = via.Unmap()
	}
	if link, err := e.kernel.Handle().LinkByIndex(r.LinkIndex); err == nil && r.Type == unix.RTN_UNICAST {
		a.Route.Link = link.Attrs().Name
	}
	text := a.String()
	if r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_LOCAL {
		text += fmt.Sprintf(" table %d", r.Table)
	}
	return text
}

// device says how the device is that packets leave by.
func (e *explanation) device(want network.State) {
	if len(want.Routes) == 0 {
		return
	}
	name := want.Routes[0].Value.Link
	if name == e.uplink.Name {
		e.step("mtu", fmt.Sprintf("%d", e.uplink.MTU), status.Note, "of "+name)
		return
	}
	c := e.tables.Links.Get(name)
	mark := status.Right
	if !c.Present || c.Have != c.Want {
		mark = status.Missing
		e.verdict(false, fmt.Sprintf("device %s is not as it is to be", name))
	}
	e.step("device", fmt.Sprintf("%s local %s port %d", name, c.Want.Local, c.Want.Port), mark, "")
	e.step("mtu", fmt.Sprintf("%d", c.Want.MTU), status.Note, fmt.Sprintf("of %s; the uplink has %d", name, e.uplink.MTU))
}

// ofFamily returns the part of a peer's state that is about one family.
func ofFamily(s network.State, f subnet.Family) (out network.State) {
	is := func(a netip.Addr) bool { return subnet.FamilyOf(a) == f }
	for _, x := range s.Routes {
		if is(x.Key.Prefix.Addr()) {
			out.Routes = append(out.Routes, x)
		}
	}
	for _, x := range s.Nexthops {
		if is(x.Value.Gateway) {
			out.Nexthops = append(out.Nexthops, x)
		}
	}
	for _, x := range s.Neighbours {
		if is(x.Key.IP) {
			out.Neighbours = append(out.Neighbours, x)
			for _, y := range s.FDB {
				if y.Key.MAC == x.Value.MAC && y.Key.Link == x.Key.Link {
					out.FDB = append(out.FDB, y)
				}
			}
		}
	}
	return out
}
