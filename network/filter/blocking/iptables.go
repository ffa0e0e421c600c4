package blocking

import (
	"fmt"
	"net/netip"

	"github.com/selvage-net/selvage/network/filter/xtables"
)

// fromLegacy decodes a rule of the legacy iptables.
func fromLegacy(r xtables.Rule) rule {
	var out rule
	add := func(c condition) { out.Conditions = append(out.Conditions, c) }
	for f, p := range map[field]xtables.Prefix{source: r.Src, target: r.Dst} {
		if p.Addr.IsValid() {
			add(addresses(f, p.Addr, p.Mask.AsSlice(), p.Not))
		}
	}
	for f, d := range map[field]xtables.Device{inName: r.In, outName: r.Out} {
		if d.Name != "" {
			name := d.Name
			if d.Wildcard {
				name += "*"
			}
			add(condition{Field: f, Names: []string{name}, Not: d.Not})
		}
	}
	if r.Proto != 0 {
		add(condition{Field: protocols, Values: []uint32{uint32(r.Proto)}, Not: r.NotProto})
	}
	if r.Fragments || r.Tos {
		add(condition{})
	}
	for _, m := range r.Matches {
		add(match(m.Name, uint32(m.Rev), m.Info))
	}
	switch r.Verdict {
	case xtables.None:
		if r.Target.Name != "" {
			out.Kind = verdict(r.Target.Name)
		}
	case xtables.Accept:
		out.Kind = accept
	case xtables.Drop:
		out.Kind = drop
	case xtables.Return:
		out.Kind = ret
	case xtables.Jump:
		out.Kind, out.To = jump, r.To
	case xtables.Goto:
		out.Kind, out.To = tailCall, r.To
	default:
		out.Kind = anything
	}
	return out
}

// addresses returns the condition that an address matches addr under a mask.
func addresses(f field, addr netip.Addr, mask []byte, not bool) condition {
	ones, ended := 0, false
	for _, b := range mask {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			switch {
			case b&bit == 0:
				ended = true
			case ended:
				return condition{} // not a prefix
			default:
				ones++
			}
		}
	}
	return condition{Field: f, Spans: []span{spanOf(netip.PrefixFrom(addr, ones))}, Not: not}
}

// number names rules by their position.
func number(rules []rule) []rule {
	for i := range rules {
		rules[i].Text = fmt.Sprintf("rule %d", i+1)
	}
	return rules
}
