package policy

import (
	"cmp"
	"net/netip"
	"strconv"
)

// Direction is the side of a connection that a rule is about, as seen from the pod that a policy selects.
type Direction uint8

// The directions, usable as indices.
const (
	Ingress Direction = iota // connections to the pod
	Egress                   // connections from the pod
)

// Directions lists both directions.
func Directions() [2]Direction { return [2]Direction{Ingress, Egress} }

// String returns "ingress" or "egress", which is also the field of a policy's spec.
func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Protocol is an IP protocol number. In a rule, zero is any protocol.
type Protocol uint8

// The protocols that have ports in policies, and that of neighbour discovery.
const (
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// HasPorts reports whether policies can name ports of the protocol.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// ParseProtocol returns the protocol with an API's name; ok is false if it is none of TCP, UDP and SCTP.
func ParseProtocol(name string) (p Protocol, ok bool) {
	for _, p := range []Protocol{TCP, UDP, SCTP} {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}

// String returns the API's name of the protocol, or its number.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// Namespace is what policies need to know of a namespace.
type Namespace struct {
	Name   string
	Labels Labels
}

// Pod is what policies need to know of a pod.
type Pod struct {
	UID         string // identifies the pod: the next pod with its name, or its address, has another one
	Namespace   string
	Name        string
	Node        string        // the name of its node; empty: none yet
	Labels      Labels        //
	Addresses   [2]netip.Addr // by [subnet.Family]; invalid: none, or none yet
	Ports       Ports         // named ports of its containers, and of init containers that restart always
	Since       int64         // its start on the node, else its creation, in seconds since 1970
	Deleting    bool          // it has a deletionTimestamp: it still counts
	HostNetwork bool          // it has the node's addresses
	Ended       bool          // its phase is Succeeded or Failed
}

// Counts reports whether policies select the pod, by themselves or as a peer. A pod with the node's address never
// counts, nor one that has ended: its address is still in the API, and another pod may already have it.
func (p *Pod) Counts() bool { return !p.HostNetwork && !p.Ended }

// Precedes reports whether the pod is the owner of an address that another pod has in the API as well. The deletion of
// a pod can be reported after the next pod has its address. So a pod that is not being deleted takes precedence, then
// the one that started later. UIDs decide last, so that the order of the reports does not matter.
func (p *Pod) Precedes(other *Pod) bool {
	if p.Deleting != other.Deleting {
		return !p.Deleting
	}
	return cmp.Or(cmp.Compare(p.Since, other.Since), cmp.Compare(p.UID, other.UID)) > 0
}

// Group selects pods: those in some namespaces with some labels.
type Group struct {
	// Namespace is the name of the only namespace. Empty: Namespaces selects, and no namespace that is not known.
	Namespace  string
	Namespaces Selector
	Pods       Selector
}

// String returns the group as text, which is different for different groups.
func (g Group) String() string {
	if g.Namespace != "" {
		return "pods(" + g.Pods.String() + ") in " + plain(g.Namespace)
	}
	return "pods(" + g.Pods.String() + ") in namespaces(" + g.Namespaces.String() + ")"
}

// Peer is the other end of a connection: a group of pods, or a block of addresses.
type Peer struct {
	Group  Group          // unless Block is valid
	Block  netip.Prefix   // without host bits
	Except []netip.Prefix // what is not in Block; may be outside of it
}

// Port is a condition on the protocol and the destination port of a connection.
type Port struct {
	Protocol Protocol // zero: that of the named port
	// Name is the name of a port of the destination pod. Empty: First to Last, both included. All ports of the
	// protocol are 0 to 65535.
	Name        string
	First, Last uint16
}

// Match is what a rule matches. The zero value matches nothing.
type Match struct {
	AnyPeer bool
	Peers   []Peer // unless AnyPeer
	AnyPort bool   // any port, and any protocol
	Ports   []Port // unless AnyPort
}

// Policy is a NetworkPolicy. A rule that was not understood matches nothing, so that the others keep their index.
type Policy struct {
	Namespace string
	Name      string
	Subject   Group
	Isolates  [2]bool    // by Direction: spec.policyTypes
	Rules     [2][]Match // by Direction; ignored if the policy does not isolate in the direction
	Problems  []Problem
}

// Key returns "namespace/name".
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// Tier is a group of cluster policies: those that come before all NetworkPolicies, and those after.
type Tier uint8

// The tiers of a [ClusterPolicy].
const (
	Admin Tier = iota
	Baseline
)

// String returns the API's name of the tier.
func (t Tier) String() string {
	if t == Admin {
		return "Admin"
	}
	return "Baseline"
}

// Action is what a rule of a [ClusterPolicy] does.
type Action uint8

// The actions.
const (
	Accept Action = iota // the connection is allowed in this direction
	Deny                 // the connection is denied
	Pass                 // the next tier decides
)

// String returns the API's name of the action.
func (a Action) String() string { return [...]string{"Accept", "Deny", "Pass"}[a] }

// ClusterRule is a rule of a [ClusterPolicy].
type ClusterRule struct {
	Name   string // may be empty
	Action Action
	Match
}

// ClusterPolicy is a ClusterNetworkPolicy. Its rules are as [DecodeClusterPolicy] made them of what was not understood.
type ClusterPolicy struct {
	Name      string
	Tier      Tier
	Priority  int32 // 0 first
	Subject   Group
	NoSubject bool             // it selects no pod, since its subject was not understood
	Rules     [2][]ClusterRule // by Direction; the first that matches counts
	Problems  []Problem
}

// Order compares two cluster policies of one tier: the smaller is asked first. With equal priorities, the API lets
// either be the first; here it is the name that decides.
func (p *ClusterPolicy) Order(other *ClusterPolicy) int {
	return cmp.Or(cmp.Compare(p.Priority, other.Priority), cmp.Compare(p.Name, other.Name))
}
