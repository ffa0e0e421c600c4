package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/doctor/probe"
)

// diagnosis is what is wrong with one path. It is comparable, and names no peer: peers with the same diagnosis are reported
// together.
type diagnosis struct {
	level        Level
	text, advice sentence
}

// sentence is text that is made last, when it is known which peers it is about.
type sentence struct {
	format string
	args   [maxArgs]any // comparable ones
	n      int
}

const maxArgs = 5

// Arguments of a sentence about peers.
type (
	them        struct{} // their names and addresses
	theirSubnet struct{} // the subnet of their lease; of several, a placeholder
)

func say(format string, args ...any) sentence {
	s := sentence{format: format, n: len(args)}
	copy(s.args[:], args)
	return s
}

// about returns the sentence with the peers put in.
func (s sentence) about(n *names) string {
	args := s.args
	for i, a := range args {
		switch a.(type) {
		case them:
			args[i] = n.String()
		case theirSubnet:
			args[i] = n.subnet()
		}
	}
	return fmt.Sprintf(s.format, args[:s.n]...)
}

func fail(format string, args ...any) diagnosis {
	return diagnosis{level: Failure, text: say(format, args...)}
}

func warn(format string, args ...any) diagnosis {
	return diagnosis{level: Warning, text: say(format, args...)}
}

func pass(format string, args ...any) diagnosis {
	return diagnosis{level: Pass, text: say(format, args...)}
}

// advise adds what to do.
func (d diagnosis) advise(format string, args ...any) diagnosis { return d.with(say(format, args...)) }

func (d diagnosis) with(advice sentence) diagnosis {
	d.advice = advice
	return d
}

// names are the peers with one diagnosis, each once: "node2 (172.31.0.12, fd00:31::12), node3 (172.31.0.13)".
type names struct {
	order     []string
	addresses map[string][]string // by name
	subnets   []netip.Prefix      // of their leases
}

// subnet returns the subnet, if all are of one lease, or a placeholder.
func (n *names) subnet() string {
	if len(n.subnets) == 1 {
		return n.subnets[0].String()
	}
	return "SUBNET"
}

func (n *names) add(p probe.Path, lease netip.Prefix) {
	name := cmp.Or(p.Node, p.Key)
	if !slices.Contains(n.subnets, lease) && len(n.subnets) < 2 { // two are as good as many
		n.subnets = append(n.subnets, lease)
	}
	if n.addresses[name] == nil {
		n.order = append(n.order, name)
	}
	n.addresses[name] = append(n.addresses[name], p.Target.Underlay.String())
}

func (n *names) String() string {
	slices.Sort(n.order)
	var all []string
	for _, name := range n.order {
		slices.Sort(n.addresses[name])
		all = append(all, fmt.Sprintf("%s (%s)", name, strings.Join(n.addresses[name], ", ")))
	}
	return some(all)
}
