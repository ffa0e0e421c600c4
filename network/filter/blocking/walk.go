package blocking

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Packets are all packets that have some things in common; what is not said of them differs or is not known.
type Packets struct {
	From, To netip.Prefix // where the source is, and the destination
	In, Out  []string     // by which devices they come and go; nil: nobody knows
	// If nobody knows, by these they do not.
	NotIn, NotOut []string
}

// What all of the packets are, besides: the first of a TCP connection, translated by nobody, nor marked for that by kube-proxy.
const (
	protocol = unix.IPPROTO_TCP
	state    = 8         // NF_CT_STATE_BIT(IP_CT_NEW): a bit for each state, of which a packet has one
	status   = 0x10 | 32 // IPS_SRC_NAT, IPS_DST_NAT: bits that they do not have
	// A bit of the mark that they do not have: by it kube-proxy knows what it masquerades, which are packets to services. With
	// iptables it accepts these in FORWARD, and that is no way for packets from pod to pod.
	mark = 0x4000
)

// truth tells whether a condition holds for packets.
type truth int

const (
	perhaps truth = iota // for some, or nobody knows
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
	unknown   field = iota // nothing can be said of it
	nothing                // it holds always
	source                 // in Prefixes
	target                 // in Prefixes
	inName                 // one of Names; a * at the end stands for any end
	outName                // one of Names
	family                 // Values: NFPROTO_…
	protocols              // Values: IPPROTO_…
	states                 // any bit of Mask is set in the connection's state
	statuses               // any bit of Mask is set in the connection's status
	marks                  // those bits of the mark that are in Mask are Values
)

// condition is one that packets have to meet for a rule to decide on them.
type condition struct {
	Field  field
	Not    bool
	Spans  []span
	Names  []string
	Values []uint32
	Mask   uint32
}

// kind is what a rule decides.
type kind int

const (
	next   kind = iota // nothing: go on with the next rule
	accept             // the packet passes the table
	drop               // or is rejected
	back               // go on behind the call
	jump               // to another chain
	gone               // to another chain, and then behind the call
	anyhow             // whatever it likes
)

// rule is a rule; Text is how to name it.
type rule struct {
	Conditions []condition
	Kind       kind
	To         string // of jump and gone
	Text       string
}

// holds tells whether packets meet a rule's conditions.
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
		t = is(slices.Contains(c.Values, protocol))
	case states:
		t = is(c.Mask&state != 0)
	case statuses:
		if c.Mask&^status == 0 {
			t = never
		}
	case marks:
		switch {
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

// span is a range of addresses.
type span struct{ First, Last netip.Addr }

// spanOf returns the addresses of a prefix.
func spanOf(p netip.Prefix) span { return span{p.Masked().Addr(), subnet.LastAddr(p)} }

// within tells whether addresses anywhere in p are in one of the spans. Those of another family say nothing: what is compared
// there then is something else.
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

// named tells whether devices, any of these, have one of the names; if there are none, it is one that nobody knows, but none of
// the others.
func named(devices, others, names []string) truth {
	if len(devices) == 0 {
		switch {
		case slices.Contains(names, "*"):
			return always
		case !slices.ContainsFunc(names, func(name string) bool { return name != "lo" && !slices.Contains(others, name) }):
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

// fates are what may become of packets in a chain.
type fates struct {
	accepted, dropped, through bool // through: they come out behind its last rule, or by a return
	// by names the rule that decides for good, "" if none does, and where its chain is.
	by, chain string
}

// maxDepth is how many chains deep calls are followed. The kernel allows 16; a loop it refuses.
const maxDepth = 20

// walk lets packets go through a chain. rules returns those of a chain; known is false if it cannot tell.
func walk(p Packets, chain string, depth int, rules func(chain string) (list []rule, known bool)) (f fates) {
	list, known := rules(chain)
	if !known || depth > maxDepth {
		return fates{accepted: true, dropped: true, through: true}
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
			f.dropped = true
		case back:
			f.through = true
		case anyhow:
			f.accepted, f.dropped, stops = true, true, false
		case jump, gone:
			called := walk(p, r.To, depth+1, rules)
			f.accepted, f.dropped = f.accepted || called.accepted, f.dropped || called.dropped
			if r.Kind == gone {
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
