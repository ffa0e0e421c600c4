package policy

import "net/netip"

// Miss is a rule of a NetworkPolicy that isolates a pod, and that did not match a packet.
type Miss struct {
	Policy string // namespace/name
	Rule   int    // the rule's index in the policy's list of the direction
	Peer   bool   // the rule names the other end of the connection
	Port   bool   // the rule names the protocol and port
}

// Misses returns the rules that would have allowed a packet that [Judge] denies with [CauseIsolated], in the order in
// which it asks them: each lacks the peer, the port or both.
func Misses(s Source, p Packet, dir Direction) (all []Miss) {
	own := p.Destination
	if dir == Egress {
		own = p.Source
	}
	pod := owner(s, own)
	if pod == nil {
		return nil
	}
	j := judgement{s, p, dir, pod}
	for _, of := range j.isolating() {
		for i, m := range of.Rules[dir] {
			miss := Miss{Policy: of.Key(), Rule: i}
			miss.Peer = j.matches(Match{AnyPeer: m.AnyPeer, Peers: m.Peers, AnyPort: true})
			miss.Port = j.matches(Match{AnyPeer: true, AnyPort: m.AnyPort, Ports: m.Ports})
			all = append(all, miss)
		}
	}
	return all
}

// Owner returns the pod that an address belongs to, or nil.
func Owner(s Source, a netip.Addr) *Pod { return owner(s, a) }

// Selects reports whether a group has a pod.
func Selects(s Source, g Group, p *Pod) bool { return judgement{Source: s}.selects(g, p) }
