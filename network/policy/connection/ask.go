package connection

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// Answer is what policies decide about a connection in one family.
type Answer struct {
	Source, Destination netip.Addr
	Ranges              []Range
}

// Range is a range of destination ports with one verdict.
type Range struct {
	Protocol    policy.Protocol // zero: all protocols without ports, of which an ICMP echo request was asked about
	First, Last uint16          // both included; 0 if the protocol has no ports
	Packet      policy.Packet   // the one that was asked about
	Verdicts    [2]policy.Verdict
}

// Allowed reports whether both ends allow the connection.
func (r Range) Allowed() bool {
	return r.Verdicts[policy.Ingress].Allowed && r.Verdicts[policy.Egress].Allowed
}

// Ask returns what policies decide about the first packet of a connection, for each family that both ends have. It asks
// about all pods, of whatever node. A pod that uses its node's network is the node to the other pods of that node.
func (w World) Ask(from, to End, port Port) (all []Answer, err error) {
	ports, err := port.resolve(to)
	if err != nil {
		return nil, err
	}
	for _, f := range subnet.Families() {
		p := policy.Packet{Source: from.Addresses[f], Destination: to.Addresses[f]}
		if !p.Source.IsValid() || !p.Destination.IsValid() {
			continue
		}
		p.FromNode, p.ToNode = isNodeOf(from.Pod, to.Pod), isNodeOf(to.Pod, from.Pod)
		a := Answer{Source: p.Source, Destination: p.Destination}
		for _, port := range ports {
			a.Ranges = append(a.Ranges, w.ranges(p, port)...)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s and %s have no address of the same family", from, to)
	}
	return all, nil
}

// isNodeOf reports whether a pod has the address of another pod's node.
func isNodeOf(p, other *policy.Pod) bool {
	return p != nil && other != nil && p.HostNetwork && p.Node != "" && p.Node == other.Node
}

// echoRequest is the ICMPv6 type (RFC 4443).
const echoRequest = 128

// ranges returns the verdicts on a packet for each of its ports.
func (w World) ranges(p policy.Packet, port Port) (all []Range) {
	ask := func(protocol policy.Protocol, first, last uint16) {
		p.Protocol, p.Port, p.ICMPType = protocol, first, 0
		if !protocol.HasPorts() {
			p.Protocol = ICMP
			if p.Source.Is6() {
				p.Protocol, p.ICMPType = policy.ICMPv6, echoRequest
			}
		}
		r := Range{Protocol: protocol, First: first, Last: last, Packet: p, Verdicts: policy.Judge(w, "", p)}
		if n := len(all); n > 0 && all[n-1].Protocol == protocol && same(all[n-1].Verdicts, r.Verdicts) {
			all[n-1].Last = last
			return
		}
		all = append(all, r)
	}
	each := func(protocol policy.Protocol, first, last uint16) {
		begins := w.begins(p, protocol, first, last)
		for i, begin := range begins {
			end := last
			if i+1 < len(begins) {
				end = begins[i+1] - 1
			}
			ask(protocol, begin, end)
		}
	}
	switch {
	case port == Port{}:
		for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
			each(protocol, 0, 0xffff)
		}
		ask(0, 0, 0)
	case port.Protocol == ICMP:
		ask(ICMP, 0, 0)
	default:
		each(port.Protocol, port.First, port.Last)
	}
	return all
}

// same reports whether verdicts have the same reasons.
func same(a, b [2]policy.Verdict) bool {
	for i := range a {
		x, y := a[i], b[i]
		if x.Allowed != y.Allowed || x.Cause != y.Cause || x.Policy != y.Policy || x.Rule != y.Rule ||
			!slices.Equal(x.Isolated, y.Isolated) {
			return false
		}
	}
	return true
}

// begins returns the ports from first to last at which the verdict on a packet can become another one, in order: the
// first one, and where the ports of a rule begin or have ended.
func (w World) begins(p policy.Packet, protocol policy.Protocol, first, last uint16) []uint16 {
	all := []uint16{first}
	add := func(from, to uint16) {
		if first < from && from <= last {
			all = append(all, from)
		}
		if first <= to && to < last {
			all = append(all, to+1)
		}
	}
	match := func(m policy.Match) {
		for _, port := range m.Ports {
			switch {
			case port.Name != "":
				for pod := range w.PodsAt(p.Destination) {
					for have := range pod.Ports.All() {
						if have.Name == port.Name && have.Protocol == protocol {
							add(have.Number, have.Number)
						}
					}
				}
			case port.Protocol == protocol:
				add(port.First, port.Last)
			}
		}
	}
	namespaces := map[string]bool{}
	for _, a := range []netip.Addr{p.Source, p.Destination} {
		for pod := range w.PodsAt(a) {
			namespaces[pod.Namespace] = true
		}
	}
	for _, dir := range policy.Directions() {
		for namespace := range namespaces {
			for of := range w.PoliciesIn(namespace) {
				for _, m := range of.Rules[dir] {
					match(m)
				}
			}
		}
		for of := range w.ClusterPolicies() {
			for _, r := range of.Rules[dir] {
				match(r.Match)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
