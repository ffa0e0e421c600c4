package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// State is what connection tracking knows of a packet.
type State uint8

// The states of a [Packet].
const (
	New         State = iota // the first packet of a connection, or one that is not tracked
	Established              // of a known connection in either direction, or an ICMP error that belongs to one
	Invalid                  // of no connection that is known, and none that begins
)

// Packet is what a packet has in the forward hook of the node that judges it.
type Packet struct {
	Source, Destination netip.Addr
	Protocol            Protocol
	Port                uint16 // the destination port of TCP, UDP and SCTP
	ICMPType            uint8  // of ICMPv6
	State               State
	FromNode, ToNode    bool // made by this node, or for it
}

// Cause is a code for why a packet is allowed or denied. Programs compare codes.
type Cause string

// The causes of a [Verdict].
const (
	CauseEstablished   Cause = "established"   // allowed: its connection is known
	CauseNeighbour     Cause = "neighbour"     // allowed: neighbour discovery, router or multicast listener messages
	CauseNode          Cause = "node"          // allowed: between the node itself and its pods
	CauseNoPod         Cause = "no-pod"        // allowed: the address is not a pod's
	CauseOtherNode     Cause = "other-node"    // allowed: the pod is on another node, which judges
	CauseNotIsolated   Cause = "not-isolated"  // allowed: no policy decides
	CauseItself        Cause = "itself"        // allowed: from a pod to itself, through a Service
	CauseRule          Cause = "rule"          // allowed by a rule of a NetworkPolicy
	CauseIsolated      Cause = "isolated"      // denied: NetworkPolicies isolate the pod, no rule matches
	CauseInvalid       Cause = "invalid-state" // denied: the pod is isolated, and the packet belongs to no connection
	CauseClusterAccept Cause = "cluster-accept"
	CauseClusterDeny   Cause = "cluster-deny"
)

// Verdict says whether a packet is allowed in one direction, and why.
type Verdict struct {
	Allowed  bool
	Cause    Cause
	Pod      *Pod     // which was judged; nil: no pod has the address
	Policy   string   // whose rule decided: namespace/name, or the name of a cluster policy
	Rule     int      // the rule's index in the policy's list of the direction
	Isolated []string // the NetworkPolicies that isolate the pod, sorted, if the packet got to them
}

// Judge returns the verdicts on a packet, by [Direction]. The connection is allowed if both are. A node's name makes it
// judge for the pods of that node only, as the node does; with an empty one it judges for all pods.
func Judge(s Source, node string, p Packet) [2]Verdict {
	return [2]Verdict{judge(s, node, p, Ingress), judge(s, node, p, Egress)}
}

func judge(s Source, node string, p Packet, dir Direction) Verdict {
	own := p.Destination
	if dir == Egress {
		own = p.Source
	}
	pod := owner(s, own)
	allowed := func(c Cause) Verdict { return Verdict{Allowed: true, Cause: c, Pod: pod} }
	switch {
	case p.State == Established:
		return allowed(CauseEstablished)
	case p.Protocol == ICMPv6 && own.Is6() && AlwaysAllowed(p.ICMPType):
		return allowed(CauseNeighbour)
	case p.FromNode || p.ToNode:
		return allowed(CauseNode)
	case pod == nil:
		return allowed(CauseNoPod)
	case node != "" && pod.Node != node:
		return allowed(CauseOtherNode)
	}
	j := judgement{s, p, dir, pod}
	if v, decided := j.tier(Admin); decided {
		return v
	}
	if policies := j.isolating(); len(policies) > 0 {
		return j.isolated(policies)
	}
	if v, decided := j.tier(Baseline); decided {
		return v
	}
	return allowed(CauseNotIsolated)
}

// AlwaysAllowed reports whether ICMPv6 messages of a type are no connections and have to pass: neighbour and router
// discovery, redirects (RFC 4861), and multicast listener messages (RFC 2710, RFC 3810). The range also has router
// renumbering, node information and inverse discovery between them.
func AlwaysAllowed(icmpv6Type uint8) bool {
	return icmpv6Type >= 130 && icmpv6Type <= 137 || icmpv6Type == 143
}

// owner returns the pod that an address belongs to, or nil.
func owner(s Source, a netip.Addr) (owner *Pod) {
	for p := range s.PodsAt(a) {
		if p.Counts() && (owner == nil || p.Precedes(owner)) {
			owner = p
		}
	}
	return owner
}

// judgement is one packet in one direction, and the pod that is judged.
type judgement struct {
	Source
	packet Packet
	dir    Direction
	pod    *Pod
}

// tier asks the cluster policies of a tier. The first rule that matches counts.
func (j judgement) tier(t Tier) (v Verdict, decided bool) {
	var policies []*ClusterPolicy
	for p := range j.ClusterPolicies() {
		if p.Tier == t && !p.NoSubject && j.selects(p.Subject, j.pod) {
			policies = append(policies, p)
		}
	}
	slices.SortFunc(policies, (*ClusterPolicy).Order)
	for _, p := range policies {
		for i, r := range p.Rules[j.dir] {
			if !j.matches(r.Match) {
				continue
			}
			v = Verdict{Pod: j.pod, Policy: p.Name, Rule: i}
			switch r.Action {
			case Accept:
				v.Allowed, v.Cause = true, CauseClusterAccept
				return v, true
			case Deny:
				v.Cause = CauseClusterDeny
				return v, true
			case Pass:
				return Verdict{}, false
			}
		}
	}
	return Verdict{}, false
}

// isolating returns the NetworkPolicies that isolate the pod in the direction, by name.
func (j judgement) isolating() (policies []*Policy) {
	for p := range j.PoliciesIn(j.pod.Namespace) {
		if p.Isolates[j.dir] && j.selects(p.Subject, j.pod) {
			policies = append(policies, p)
		}
	}
	slices.SortFunc(policies, func(a, b *Policy) int { return strings.Compare(a.Name, b.Name) })
	return policies
}

// isolated asks the policies that isolate the pod. What one rule of one policy matches is allowed.
func (j judgement) isolated(policies []*Policy) Verdict {
	v := Verdict{Pod: j.pod}
	for _, p := range policies {
		v.Isolated = append(v.Isolated, p.Key())
	}
	if j.packet.Source == j.packet.Destination {
		v.Allowed, v.Cause = true, CauseItself
		return v
	}
	if j.packet.State == Invalid {
		v.Cause = CauseInvalid
		return v
	}
	for _, p := range policies {
		for i, m := range p.Rules[j.dir] {
			if j.matches(m) {
				v.Allowed, v.Cause, v.Policy, v.Rule = true, CauseRule, p.Key(), i
				return v
			}
		}
	}
	v.Cause = CauseIsolated
	return v
}

// matches reports whether a rule matches the packet: one of its peers, and one of its ports.
func (j judgement) matches(m Match) bool {
	return (m.AnyPeer || slices.ContainsFunc(m.Peers, j.isPeer)) &&
		(m.AnyPort || slices.ContainsFunc(m.Ports, j.isPort))
}

// isPeer reports whether the other end of the connection is the peer.
func (j judgement) isPeer(p Peer) bool {
	other := j.packet.Source
	if j.dir == Egress {
		other = j.packet.Destination
	}
	if p.Block.IsValid() {
		inside := func(block netip.Prefix) bool { return block.Contains(other) }
		return inside(p.Block) && !slices.ContainsFunc(p.Except, inside)
	}
	pod := owner(j.Source, other)
	return pod != nil && j.selects(p.Group, pod)
}

// isPort reports whether protocol and destination port match. A named port is one of the destination pod.
func (j judgement) isPort(p Port) bool {
	if p.Name == "" {
		return p.Protocol == j.packet.Protocol && p.First <= j.packet.Port && j.packet.Port <= p.Last
	}
	pod := owner(j.Source, j.packet.Destination)
	if pod == nil || p.Protocol != 0 && p.Protocol != j.packet.Protocol {
		return false
	}
	for have := range pod.Ports.All() {
		if have.Name == p.Name && have.Protocol == j.packet.Protocol && have.Number == j.packet.Port {
			return true
		}
	}
	return false
}

// selects reports whether a group has the pod. A namespace that is not known is not selected by its labels.
func (j judgement) selects(g Group, pod *Pod) bool {
	if !g.Pods.Matches(pod.Labels) {
		return false
	}
	if g.Namespace != "" {
		return g.Namespace == pod.Namespace
	}
	ns, known := j.Namespace(pod.Namespace)
	return known && g.Namespaces.Matches(ns.Labels)
}
