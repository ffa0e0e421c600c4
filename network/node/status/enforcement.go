package status

import (
	"net/netip"
	"time"
)

// Enforcement is the state of the enforcement of network policies.
type Enforcement struct {
	Synced    bool `json:"synced"`    // all policies, namespaces and pods that are needed are known
	Enforcing bool `json:"enforcing"` // a policy selects a pod of this node
	// NeedsPeers: a policy that selects a pod of this node names other pods, so those of all nodes are followed.
	NeedsPeers bool `json:"needs_peers"`
	Pods       int  `json:"pods"` // of this node
	// Sets, Elements and Chains are those of the table in nf_tables.
	Sets     int `json:"sets"`
	Elements int `json:"elements"`
	Chains   int `json:"chains"`
	Waiting  int `json:"waiting"` // pods whose rules are not in the kernel yet
	// Closed are addresses of pods that are denied all connections until their rules are in the kernel.
	Closed  []netip.Addr   `json:"closed,omitempty"`
	Repairs uint64         `json:"repairs"` // passes that repaired external changes to the tables
	Sources []PolicySource `json:"sources,omitempty"`
	// Drops counts the denied packets that were reported, since the start of the daemon. Of the packets that one rule
	// denies, a few a second are.
	Drops []PolicyDrops `json:"drops,omitempty"`
}

// PolicyDrops counts reported drops of one kind. Kinds beyond the first 200 are counted as one, in which only
// Direction and Count are set.
type PolicyDrops struct {
	Namespace string `json:"namespace,omitempty"` // of the pod whose policies denied the packets; empty: not known
	Direction string `json:"direction"`           // ingress or egress, as seen from that pod
	Cause     string `json:"cause,omitempty"`     // a code: a DropCause
	// Policy is the ClusterNetworkPolicy whose rules denied them, or the first by name of the NetworkPolicies that
	// isolate the pod, as namespace/name. Empty: none, as with a source that is not the pod's.
	Policy string `json:"policy,omitempty"`
	Count  uint64 `json:"count"`
}

// PolicySource is something that is followed to enforce policies.
type PolicySource struct {
	Name     string    `json:"name"`           // such as networkpolicies
	Complete bool      `json:"complete"`       // all of it was read at least once
	Objects  int       `json:"objects"`        // that are known
	Since    time.Time `json:"since,omitzero"` // since when its changes are not seen; zero: they are
}
