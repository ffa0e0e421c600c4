package status

import "time"

// Drop is a packet that a node dropped because of a policy, or whose sender it answered.
type Drop struct {
	At        time.Time `json:"at"`
	Direction string    `json:"direction"`        // ingress or egress, as seen from the pod whose policies denied it
	Cause     string    `json:"cause"`            // a code: a DropCause
	Policy    string    `json:"policy,omitempty"` // the cluster policy whose rule denied it
	Rule      *int      `json:"rule,omitempty"`   // the rule's index in the policy's list of the direction
	// Isolated are the NetworkPolicies that isolate the pod, with the cause "isolated". They are those of the moment in
	// which the daemon saw the packet.
	Isolated        []string  `json:"isolated,omitempty"`
	Protocol        string    `json:"protocol"` // TCP, UDP, SCTP, ICMP, ICMPv6, or a number
	Source          PolicyEnd `json:"source"`
	SourcePort      uint16    `json:"source_port,omitempty"` // 0: the protocol has no ports
	Destination     PolicyEnd `json:"destination"`
	DestinationPort uint16    `json:"destination_port,omitempty"`
	// Missed is how many drops before this one could not be reported, at least: the reader or the daemon was too slow.
	// Those above the rate that a rule logs are not counted.
	Missed uint64 `json:"missed,omitempty"`
}

// DropCause is a code for why a packet was dropped. Programs compare codes.
type DropCause string

// The causes of a [Drop].
const (
	DropIsolated   DropCause = "isolated"       // NetworkPolicies isolate the pod, and no rule matches
	DropDenied     DropCause = "cluster-deny"   // a rule of a ClusterNetworkPolicy
	DropInvalid    DropCause = "invalid-state"  // the pod is isolated, and the packet belongs to no connection
	DropNoRulesYet DropCause = "no-rules-yet"   // the pod is closed until its rules are in the kernel
	DropCut        DropCause = "cut"            // the other direction of a connection that policies deny by now
	DropSpoofed    DropCause = "spoofed-source" // the source is not an address of the pod
	DropLinkLocal  DropCause = "link-local"     // between pods, from an address that no policy can name
)
