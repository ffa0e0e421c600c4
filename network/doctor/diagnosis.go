package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/doctor/probe"
)

// diagnosis is what is wrong with one path. It is comparable and does not name the peer, so that peers with the same
// diagnosis are reported together.
type diagnosis struct {
	level        Level
	text, advice phrase
}

// phrase is text that is rendered last, when all peers that it is about are known.
type phrase struct {
	format string
	args   [maxArgs]any // all comparable
	n      int
}

const maxArgs = 5

// Placeholders in a phrase's arguments.
type (
	peerNames  struct{} // the names and addresses of the peers
	peerSubnet struct{} // the subnet of their lease, or "SUBNET" for several leases
	peerKey    struct{} // the name of their lease's record, or "NODE" for several leases
)

func textf(format string, args ...any) phrase {
	s := phrase{format: format, n: len(args)}
	copy(s.args[:], args)
	return s
}

// render returns the text for these peers.
func (s phrase) render(n *affectedPeers) string {
	args := s.args
	for i, a := range args {
		switch a.(type) {
		case peerNames:
			args[i] = n.String()
		case peerSubnet:
			args[i] = n.subnet()
		case peerKey:
			args[i] = n.key()
		}
	}
	return fmt.Sprintf(s.format, args[:s.n]...)
}

func fail(format string, args ...any) diagnosis {
	return diagnosis{level: Failure, text: textf(format, args...)}
}

func warn(format string, args ...any) diagnosis {
	return diagnosis{level: Warning, text: textf(format, args...)}
}

func pass(format string, args ...any) diagnosis {
	return diagnosis{level: Pass, text: textf(format, args...)}
}

// advise adds the advice.
func (d diagnosis) advise(format string, args ...any) diagnosis {
	return d.with(textf(format, args...))
}

func (d diagnosis) with(advice phrase) diagnosis {
	d.advice = advice
	return d
}

// affectedPeers are the peers with one diagnosis. It lists each of them once:
// "node2 (172.31.0.12, fd00:31::12), node3 (172.31.0.13)".
type affectedPeers struct {
	order     []string
	addresses map[string][]string // by name
	subnets   []netip.Prefix      // of their leases, at most two of them
	keys      []string            // the same, the names of their leases' records
}

// subnet returns the subnet of the peers' lease, or a placeholder if there are several leases.
func (n *affectedPeers) subnet() string {
	if len(n.subnets) == 1 {
		return n.subnets[0].String()
	}
	return "SUBNET"
}

// key returns the name of the record of the peers' lease, or a placeholder if there are several leases.
func (n *affectedPeers) key() string {
	if len(n.keys) == 1 {
		return shellQuote(n.keys[0])
	}
	return "NODE"
}

func (n *affectedPeers) add(p probe.Path, lease netip.Prefix) {
	name := cmp.Or(p.Node, p.Key)
	if !slices.Contains(n.subnets, lease) && len(n.subnets) < 2 { // subnet needs no more
		n.subnets = append(n.subnets, lease)
	}
	if !slices.Contains(n.keys, p.Key) && len(n.keys) < 2 {
		n.keys = append(n.keys, p.Key)
	}
	if n.addresses[name] == nil {
		n.order = append(n.order, name)
	}
	n.addresses[name] = append(n.addresses[name], p.Target.Underlay.String())
}

func (n *affectedPeers) String() string {
	slices.Sort(n.order)
	var all []string
	for _, name := range n.order {
		slices.Sort(n.addresses[name])
		all = append(all, fmt.Sprintf("%s (%s)", name, strings.Join(n.addresses[name], ", ")))
	}
	return abbreviate(all)
}
