package status

import "net/netip"

// Policies are the network policies that a node knows.
type Policies struct {
	// Enforced reports whether the node enforces policies at all.
	Enforced bool     `json:"enforced"`
	Policies []Policy `json:"policies"` // by name; cluster policies first, as they are asked
}

// The kinds of a [Policy], as the API has them.
const (
	KindNetworkPolicy        = "NetworkPolicy"
	KindClusterNetworkPolicy = "ClusterNetworkPolicy"
)

// Policy is a network policy.
type Policy struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"` // empty: of the cluster
	Name      string `json:"name"`
	Tier      string `json:"tier,omitempty"`     // of a cluster policy: Admin or Baseline
	Priority  *int32 `json:"priority,omitempty"` // of a cluster policy: 0 is asked first
	// Selects is which pods it is about, with labels in kubectl's syntax; empty: none.
	Selects  string              `json:"selects"`
	Pods     int                 `json:"pods"`               // known pods that it selects; for a daemon, of its node
	Isolates []string            `json:"isolates,omitempty"` // of a NetworkPolicy: ingress, egress
	Rules    []NetworkPolicyRule `json:"rules"`
	Problems []PolicyProblem     `json:"problems,omitempty"`
}

// Key returns "namespace/name", or the name of a cluster policy.
func (p Policy) Key() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// NetworkPolicyRule is a rule of a policy.
type NetworkPolicyRule struct {
	Direction string `json:"direction"` // ingress or egress
	Index     int    `json:"index"`     // in the policy's list of the direction, from 0
	Name      string `json:"name,omitempty"`
	Action    string `json:"action,omitempty"` // of a cluster policy: Accept, Deny or Pass
	// Peers are groups of pods, with labels in kubectl's syntax, and blocks of addresses. Ports are such as 80/TCP,
	// 8000-8999/UDP, TCP or http/TCP. Null stands for all, and an empty list for none.
	Peers []string `json:"peers"`
	Ports []string `json:"ports"`
}

// PolicyProblem is a part of a policy that was not understood, and therefore allows nothing.
type PolicyProblem struct {
	Reason string `json:"reason"` // a code
	Place  string `json:"place"`  // such as spec.ingress[0].from[1]
	Text   Text   `json:"text"`   // for people
}

// PolicyEnd is an end of a connection.
type PolicyEnd struct {
	Address netip.Addr `json:"address"`
	Pod     string     `json:"pod,omitempty"`  // namespace/name; empty: the address is not a pod's
	Node    string     `json:"node,omitempty"` // of the pod
}

// PolicyVerdict is what policies decide about connections from one address to another.
type PolicyVerdict struct {
	Source      PolicyEnd     `json:"source"`
	Destination PolicyEnd     `json:"destination"`
	Ports       []PortVerdict `json:"ports"`
	// Kernel is what nf_tables has about the ends that are pods of the daemon's node. Empty for policies of files.
	Kernel []PolicyKernel `json:"kernel,omitempty"`
}

// PolicyKernel is what nf_tables has about a pod of the node in one direction.
type PolicyKernel struct {
	Direction string     `json:"direction"` // egress of the source, ingress of the destination
	Address   netip.Addr `json:"address"`
	Table     string     `json:"table"`           // of family inet
	Chain     string     `json:"chain,omitempty"` // of the pod; empty: no policy decides about it in this direction
	InForce   bool       `json:"in_force"`        // it has all that the policies demand for the pod
	// Bypassed is the setting below net.bridge because of which packets to and from other pods of this node are not
	// judged: it is not 1, or does not exist.
	Bypassed string `json:"bypassed,omitempty"`
	Closed   bool   `json:"closed"` // all packets of the pod are denied until its rules are in force
	Denied   uint64 `json:"denied"` // packets that the chain denied since its rules were set
}

// ProtocolOther stands for all protocols without ports.
const ProtocolOther = "other"

// PortVerdict is what policies decide about a range of destination ports.
type PortVerdict struct {
	Protocol string         `json:"protocol"` // TCP, UDP, SCTP, ICMP, or other
	First    uint16         `json:"first"`    // 0 for a protocol without ports
	Last     uint16         `json:"last"`     // included
	Allowed  bool           `json:"allowed"`  // in both directions
	Egress   PolicyDecision `json:"egress"`   // by the node of the source
	Ingress  PolicyDecision `json:"ingress"`  // by the node of the destination
}

// PolicyDecision is what policies decide in one direction.
type PolicyDecision struct {
	Allowed bool   `json:"allowed"`
	Cause   string `json:"cause"`          // a code: network/policy.Cause
	Pod     string `json:"pod,omitempty"`  // whose policies were asked; empty: no pod has the address
	Node    string `json:"node,omitempty"` // of that pod: which decides
	Policy  string `json:"policy,omitempty"`
	// Rule is the rule of the policy that decided.
	Rule *NetworkPolicyRule `json:"rule,omitempty"`
	// Isolated are the NetworkPolicies that isolate the pod, and Missed are their rules that did not match.
	Isolated []string     `json:"isolated,omitempty"`
	Missed   []MissedRule `json:"missed,omitempty"`
}

// MissedRule is a rule that did not match.
type MissedRule struct {
	Policy string            `json:"policy"`
	Rule   NetworkPolicyRule `json:"rule"`
	Peer   bool              `json:"peer"` // it names the other end of the connection
	Port   bool              `json:"port"` // it names the protocol and port
}
