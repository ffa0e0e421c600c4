package blocking

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Packets is a class of packets with common properties. Other properties differ or are unknown.
type Packets struct {
	From, To      netip.Prefix // of the source and destination addresses
	In, Out       []string     // possible devices; nil: unknown
	NotIn, NotOut []string     // if they are unknown: devices that are not possible
	// Port is the UDP destination port of packets of a tunnel, as [Ruleset.Discards] examines them; 0: the packets are
	// the first ones of TCP connections of pods.
	Port uint16
}

// Further properties of all packets, none of which have been through NAT. Those of pods do not have the mark by which
// kube-proxy requests it, those of a tunnel may have any.
const (
	stateNew       = 8         // NF_CT_STATE_BIT(IP_CT_NEW): each state has a bit, and a packet has one state
	stateUntracked = 64        // NF_CT_STATE_UNTRACKED_BIT
	status         = 0x10 | 32 // IPS_SRC_NAT, IPS_DST_NAT: bits that are not set
	// A bit of the mark that is not set. kube-proxy sets it on packets to services that it masquerades, and accepts
	// those in FORWARD with iptables. That does not accept packets between pods.
	mark = 0x4000
)

// truth is whether a condition holds for a class of packets.
type truth int

const (
	perhaps truth = iota // for some of them, or unknown
	never
	always
)

func (t truth) not() truth {
	return [...]truth{perhaps: perhaps, never: always, always: never}[t]
}

func is(b bool) truth {
	if b {
		return always
	}
	return never
}

// field is what a condition is about.
type field int

const (
	unknown   field = iota // not understood
	nothing                // always holds
	source                 // in Spans
	target                 // in Spans
	inName                 // one of Names; a trailing * is a wildcard
	outName                // one of Names
	family                 // Values: NFPROTO_…
	protocols              // Values: IPPROTO_…
	states                 // any bit of Mask is set in the connection's state
	statuses               // any bit of Mask is set in the connection's status
	marks                  // the mark under Mask equals Values[0]
	ports                  // the destination port of TCP or UDP is in Ports
)

// condition is one condition of a rule.
type condition struct {
	Field  field
	Not    bool
	Spans  []span
	Ports  []portSpan
	Names  []string
	Values []uint32
	Mask   uint32
}

// kind is the verdict of a rule.
type kind int

const (
	next     kind = iota // continue with the next rule
	accept               // the packet passes the table
	drop                 // drop or reject
	ret                  // return to the calling chain
	jump                 // call another chain
	tailCall             // goto: call another chain, and then return
	anything             // unknown
)

// rule is a decoded rule; Text names it in reports.
type rule struct {
	Conditions []condition
	Kind       kind
	To         string // of jump and tailCall
	Text       string
}

// holds reports whether packets meet all conditions of a rule.
func (r rule) holds(p Packets) truth {
	all := always
	for _, c := range r.Conditions {
		switch c.holds(p) {
		case never:
			return never
		case perhaps:
			all = perhaps
		}
	}
	return all
}

func (c condition) holds(p Packets) truth {
	t := perhaps
	switch c.Field {
	case nothing:
		t = always
	case source:
		t = within(p.From, c.Spans)
	case target:
		t = within(p.To, c.Spans)
	case inName:
		t = named(p.In, p.NotIn, c.Names)
	case outName:
		t = named(p.Out, p.NotOut, c.Names)
	case family:
		proto := uint32(unix.NFPROTO_IPV4)
		if p.From.Addr().Is6() {
			proto = unix.NFPROTO_IPV6
		}
		t = is(slices.Contains(c.Values, proto))
	case protocols:
		t = is(slices.Contains(c.Values, p.protocol()))
	case states:
		t = among(c.Mask, p.states())
	case statuses:
		if c.Mask&^status == 0 {
			t = never
		}
	case ports:
		if p.Port != 0 {
			t = is(slices.ContainsFunc(c.Ports, func(s portSpan) bool { return s.First <= p.Port && p.Port <= s.Last }))
		}
	case marks:
		switch {
		case p.Port != 0:
		case c.Values[0]&c.Mask&mark != 0:
			t = never
		case c.Mask == mark:
			t = always
		}
	}
	if c.Not {
		return t.not()
	}
	return t
}

// protocol returns the packets' protocol, IPPROTO_….
func (p Packets) protocol() uint32 {
	if p.Port != 0 {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// states returns the bits of the states that the packets' connection may have. One node's packets to the other are not
// the answers to those that it gets from there: they have other ports.
func (p Packets) states() uint32 {
	if p.Port != 0 {
		return stateNew | stateUntracked
	}
	return stateNew
}

// among reports whether a value is one of those in mask if it is one of those in possible.
func among(mask, possible uint32) truth {
	switch mask & possible {
	case 0:
		return never
	case possible:
		return always
	}
	return perhaps
}

// portSpan is a range of ports.
type portSpan struct{ First, Last uint16 }

// span is a range of addresses.
type span struct{ First, Last netip.Addr }

// spanOf returns the addresses of a prefix.
func spanOf(p netip.Prefix) span { return span{p.Masked().Addr(), subnet.LastAddr(p)} }

// within reports whether the addresses of p are in one of the spans. For spans of the other family the result is
// perhaps: then the rule compares something else.
func within(p netip.Prefix, spans []span) truth {
	t, all := never, spanOf(p)
	for _, s := range spans {
		switch {
		case s.First.Is4() != p.Addr().Is4():
			return perhaps
		case !all.First.Less(s.First) && !s.Last.Less(all.Last):
			return always
		case !all.Last.Less(s.First) && !s.Last.Less(all.First):
			t = perhaps
		}
	}
	return t
}

// named reports whether the device has one of the names, if it is any of devices. Without devices it is unknown, but
// none of others.
func named(devices, others, names []string) truth {
	if len(devices) == 0 {
		switch {
		case slices.Contains(names, "*"):
			return always
		case !slices.ContainsFunc(names, func(name string) bool {
			return name != "lo" && !slices.Contains(others, name)
		}):
			return never // nothing that is forwarded comes or goes by lo
		}
		return perhaps
	}
	matching := 0
	for _, d := range devices {
		if slices.ContainsFunc(names, func(name string) bool {
			begin, wild := strings.CutSuffix(name, "*")
			return name == d || wild && strings.HasPrefix(d, begin)
		}) {
			matching++
		}
	}
	switch matching {
	case 0:
		return never
	case len(devices):
		return always
	default:
		return perhaps
	}
}

// outcome holds the possible results of a chain for a class of packets.
type outcome struct {
	accepted, dropped, through bool // through: they leave the chain at its end or by a return
	// by is the rule after which no packet continues, "" if there is none; chain is its chain.
	by, chain string
	drops     []dropper // the rules that drop some of them, or all
}

// dropper is a rule, in a chain.
type dropper struct{ chain, by string }

// maxDepth bounds the depth of jumps that are followed. The kernel allows 16, and rejects loops.
const maxDepth = 20

// walk evaluates a chain for a class of packets. rules returns the rules of a chain; known is false if they cannot be
// read.
func walk(p Packets, chain string, depth int, rules func(chain string) (list []rule, known bool)) (f outcome) {
	list, known := rules(chain)
	if !known || depth > maxDepth {
		return outcome{accepted: true, dropped: true, through: true}
	}
	for _, r := range list {
		holds := r.holds(p)
		if holds == never {
			continue
		}
		stops := holds == always
		switch r.Kind {
		case next:
			stops = false
		case accept:
			f.accepted = true
		case drop:
			f.dropped, f.drops = true, append(f.drops, dropper{chain, r.Text})
		case ret:
			f.through = true
		case anything:
			f.accepted, f.dropped, stops = true, true, false
			f.drops = append(f.drops, dropper{chain, r.Text})
		case jump, tailCall:
			called := walk(p, r.To, depth+1, rules)
			f.accepted, f.dropped = f.accepted || called.accepted, f.dropped || called.dropped
			f.drops = append(f.drops, called.drops...)
			if r.Kind == tailCall {
				f.through = f.through || called.through
			} else if called.through {
				stops = false
			}
			if stops {
				f.by, f.chain = called.by, called.chain
			}
		}
		if stops {
			if f.by == "" {
				f.by, f.chain = r.Text, chain
			}
			return f
		}
	}
	f.through = true
	return f
}
