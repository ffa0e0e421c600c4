package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Flow asks the kernel how it routes a flow, policy rules included. The error says that it does not route it, and why:
// the number is that of ip-route(8) for the type of the route, such as EINVAL for blackhole.
func (l *Lookup) Flow(f network.Flow) (network.Hop, error) {
	request, err := l.flowRequest(f)
	if err != nil {
		return network.Hop{}, err
	}
	answers, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return network.Hop{}, err
	}
	if len(answers) == 0 {
		return network.Hop{}, unix.ENETUNREACH
	}
	h, err := l.hop(answers[0])
	if !h.Source.IsValid() { // IPv4 does not repeat a source that was asked for
		h.Source = f.From
	}
	return h, err
}

func (l *Lookup) flowRequest(f network.Flow) (*nl.NetlinkRequest, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	request.Sockets = l.raw
	message := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: familyOf(f.To), Dst_len: uint8(f.To.BitLen()), Flags: unix.RTM_F_LOOKUP_TABLE,
	}}
	if f.From.IsValid() {
		message.Src_len = uint8(f.From.BitLen())
	}
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.RTA_DST, f.To.AsSlice()))
	if f.From.IsValid() {
		request.AddData(nl.NewRtAttr(unix.RTA_SRC, f.From.AsSlice()))
	}
	if f.In != "" {
		link, err := l.handle.LinkByName(f.In)
		if err != nil {
			return nil, err
		}
		request.AddData(nl.NewRtAttr(unix.RTA_IIF, nl.Uint32Attr(uint32(link.Attrs().Index))))
	}
	if f.UDP != 0 {
		request.AddData(nl.NewRtAttr(unix.RTA_IP_PROTO, nl.Uint8Attr(unix.IPPROTO_UDP)))
		request.AddData(nl.NewRtAttr(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, f.UDP)))
	}
	return request, nil
}

// hop decodes the kernel's answer.
func (l *Lookup) hop(b []byte) (h network.Hop, err error) {
	message := nl.DeserializeRtMsg(b)
	attributes, err := nl.ParseRouteAttr(b[message.Len():])
	if err != nil {
		return h, err
	}
	h.Table = uint32(message.Table)
	h.Local = message.Type == unix.RTN_LOCAL || message.Type == unix.RTN_BROADCAST
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.RTA_OIF:
			h.Link = l.linkName(int(binary.NativeEndian.Uint32(a.Value)))
		case unix.RTA_GATEWAY:
			h.Gateway = addrOf(a.Value)
		case unix.RTA_PREFSRC:
			h.Source = addrOf(a.Value)
		case unix.RTA_TABLE:
			h.Table = binary.NativeEndian.Uint32(a.Value)
		}
	}
	return h, nil
}

// FixedAt returns the port to which a bridge forwards frames for a MAC address because of an FDB entry that it did not
// learn; empty: there is none.
func (l *Lookup) FixedAt(bridge string, mac network.MAC) (port string, err error) {
	link, err := l.handle.LinkByName(bridge)
	if err != nil {
		return "", err
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	request.Sockets = l.raw
	request.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE})
	request.AddData(nl.NewRtAttr(unix.NDA_MASTER, nl.Uint32Attr(uint32(link.Attrs().Index))))
	request.AddData(nl.NewRtAttr(unix.NDA_LLADDR, mac[:]))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH) // since Linux 5.1
	if errors.Is(err, unix.ENOENT) || err == nil && len(answers) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if b := answers[0]; fixedEntry(b) {
		return l.linkName(int(binary.NativeEndian.Uint32(b[4:]))), nil
	}
	return "", nil
}

// Rejecting returns the policy rule, or the route in one of the tables that rules lead to, by which the kernel rejects
// a flow. A rule that depends on what a flow does not have, such as a mark, is skipped.
func (l *Lookup) Rejecting(f network.Flow) (network.Rejection, error) {
	rules, err := l.rules(familyOf(f.To))
	if err != nil {
		return network.Rejection{}, fmt.Errorf("list policy rules: %w", err)
	}
	for _, r := range rules { // in the order in which the kernel applies them
		if !matches(r, f) {
			continue
		}
		switch r.Type {
		case nl.FR_ACT_BLACKHOLE, nl.FR_ACT_UNREACHABLE, nl.FR_ACT_PROHIBIT:
			return network.Rejection{Text: ruleText(r)}, nil
		case nl.FR_ACT_TO_TBL:
			route, found, err := l.longest(f.To, r.Table)
			if err != nil {
				return network.Rejection{}, err
			}
			if !found || r.SuppressPrefixlen >= 0 && prefixLength(route.Dst) <= r.SuppressPrefixlen {
				continue
			}
			if rejects(route.Type) {
				text := fmt.Sprintf("%s, which has %s %s", ruleText(r), routeType(route.Type), prefixText(route.Dst))
				return network.Rejection{Text: text, Table: uint32(r.Table)}, nil
			}
			return network.Rejection{}, nil
		}
	}
	return network.Rejection{}, nil
}

// rules lists the policy rules of a family in their order. The library's list lacks their actions.
func (l *Lookup) rules(family uint8) (all []netlink.Rule, err error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
	request.Sockets = l.raw
	request.AddData(nl.NewIfInfomsg(int(family)))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
	if err != nil {
		return nil, err
	}
	for _, b := range answers {
		m := nl.DeserializeRtMsg(b) // struct fib_rule_hdr has the same layout, with the action as type
		attributes, err := nl.ParseRouteAttr(b[m.Len():])
		if err != nil {
			return nil, err
		}
		r := netlink.NewRule()
		r.Family, r.Type, r.Table, r.Tos, r.Priority = int(family), m.Type, int(m.Table), uint(m.Tos), 0
		r.Invert = m.Flags&netlink.FibRuleInvert != 0
		for _, a := range attributes {
			decodeRule(r, m.Src_len, m.Dst_len, a.Attr.Type, a.Value)
		}
		all = append(all, *r)
	}
	return all, nil
}

// decodeRule takes one attribute into a rule.
func decodeRule(r *netlink.Rule, srcLen, dstLen uint8, attribute uint16, v []byte) {
	number := func() uint32 { return binary.NativeEndian.Uint32(v) }
	switch attribute {
	case nl.FRA_TABLE:
		r.Table = int(number())
	case nl.FRA_PRIORITY:
		r.Priority = int(number())
	case nl.FRA_SRC:
		r.Src = &net.IPNet{IP: v, Mask: net.CIDRMask(int(srcLen), 8*len(v))}
	case nl.FRA_DST:
		r.Dst = &net.IPNet{IP: v, Mask: net.CIDRMask(int(dstLen), 8*len(v))}
	case nl.FRA_IIFNAME:
		r.IifName = unix.ByteSliceToString(v)
	case nl.FRA_OIFNAME:
		r.OifName = unix.ByteSliceToString(v)
	case nl.FRA_FWMARK:
		r.Mark = number()
	case nl.FRA_IP_PROTO:
		r.IPProto = int(v[0])
	case nl.FRA_DPORT_RANGE:
		r.Dport = netlink.NewRulePortRange(binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:]))
	case nl.FRA_SPORT_RANGE:
		r.Sport = netlink.NewRulePortRange(binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:]))
	case nl.FRA_UID_RANGE:
		r.UIDRange = netlink.NewRuleUIDRange(binary.NativeEndian.Uint32(v), binary.NativeEndian.Uint32(v[4:]))
	case nl.FRA_SUPPRESS_PREFIXLEN:
		if n := number(); n != ^uint32(0) { // none
			r.SuppressPrefixlen = int(n)
		}
	}
}

// longest returns the most specific route for an address in a table.
func (l *Lookup) longest(a netip.Addr, table int) (best netlink.Route, found bool, err error) {
	routes, err := l.handle.RouteListFiltered(int(familyOf(a)), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return best, false, fmt.Errorf("list routes of table %d: %w", table, err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.Contains(a.AsSlice()) {
			continue
		}
		n, m := prefixLength(r.Dst), prefixLength(best.Dst)
		if !found || n > m || n == m && r.Priority < best.Priority {
			best, found = r, true
		}
	}
	return best, found, nil
}

// matches reports whether a rule applies to a flow for certain.
func matches(r netlink.Rule, f network.Flow) bool {
	in := func(p *net.IPNet, a netip.Addr) bool { return p == nil || a.IsValid() && p.Contains(a.AsSlice()) }
	iif := r.IifName == "" || r.IifName == f.In || f.In == "" && r.IifName == "lo" // lo: what this node sends
	all := in(r.Src, f.From) && in(r.Dst, f.To) && iif &&
		r.Mark == 0 && r.Tos == 0 && r.OifName == "" && r.UIDRange == nil &&
		(r.IPProto == 0 || r.IPProto == unix.IPPROTO_UDP && f.UDP != 0) && r.Sport == nil &&
		(r.Dport == nil || f.UDP != 0 && r.Dport.Start <= f.UDP && f.UDP <= r.Dport.End)
	return all != r.Invert
}

// ruleText formats a rule as ip rule lists it.
func ruleText(r netlink.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip rule %d:", r.Priority)
	if r.Invert {
		b.WriteString(" not")
	}
	fmt.Fprintf(&b, " from %s", allOr(r.Src))
	if r.Dst != nil {
		fmt.Fprintf(&b, " to %s", r.Dst)
	}
	if r.IifName != "" {
		fmt.Fprintf(&b, " iif %s", r.IifName)
	}
	if r.IPProto == unix.IPPROTO_UDP {
		b.WriteString(" ipproto udp")
	}
	if r.Dport != nil {
		fmt.Fprintf(&b, " dport %d", r.Dport.Start)
		if r.Dport.End != r.Dport.Start {
			fmt.Fprintf(&b, "-%d", r.Dport.End)
		}
	}
	switch r.Type {
	case nl.FR_ACT_BLACKHOLE:
		b.WriteString(" blackhole")
	case nl.FR_ACT_UNREACHABLE:
		b.WriteString(" unreachable")
	case nl.FR_ACT_PROHIBIT:
		b.WriteString(" prohibit")
	default:
		fmt.Fprintf(&b, " lookup %s", tableName(r.Table))
	}
	return b.String()
}

func tableName(table int) string {
	switch table {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return fmt.Sprint(table)
}

func allOr(p *net.IPNet) string {
	if p == nil {
		return "all"
	}
	return p.String()
}

func prefixLength(p *net.IPNet) int {
	if p == nil {
		return 0
	}
	n, _ := p.Mask.Size()
	return n
}

func prefixText(p *net.IPNet) string {
	if prefixLength(p) == 0 {
		return "default"
	}
	return p.String()
}

// rejects reports whether routes of a type reject packets.
func rejects(routeType int) bool {
	return routeType == unix.RTN_BLACKHOLE || routeType == unix.RTN_UNREACHABLE || routeType == unix.RTN_PROHIBIT
}

// routeType names the type of a route that rejects packets.
func routeType(t int) string {
	return map[int]string{
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	}[t]
}
