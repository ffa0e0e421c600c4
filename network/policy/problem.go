package policy

import "fmt"

// Reason is a code for what was not understood. Programs compare codes; the text of a [Problem] is for people.
type Reason string

// The reasons of a [Problem].
const (
	ReasonMalformed    Reason = "malformed"         // another type of JSON value than the API's
	ReasonUnknownField Reason = "unknown-field"     // this version does not know it; it may narrow what is allowed
	ReasonSelector     Reason = "invalid-selector"  // an operator, or the number of its values
	ReasonSubject      Reason = "invalid-subject"   // not exactly one kind of subject
	ReasonPolicyType   Reason = "invalid-type"      // neither Ingress nor Egress
	ReasonPeer         Reason = "invalid-peer"      // no kind of peer, or several
	ReasonNoPeers      Reason = "no-peers"          // a cluster policy's rule without peers
	ReasonUnsupported  Reason = "unsupported-peer"  // nodes and domainNames, which are experimental
	ReasonCIDR         Reason = "invalid-cidr"      // also that of an except
	ReasonProtocol     Reason = "invalid-protocol"  // neither TCP, UDP nor SCTP
	ReasonPort         Reason = "invalid-port"      // not a port's number or name, or not a range
	ReasonTier         Reason = "invalid-tier"      // neither Admin nor Baseline
	ReasonPriority     Reason = "invalid-priority"  // not a number from 0 to 1000
	ReasonAction       Reason = "invalid-action"    // neither Accept, Deny nor Pass
	ReasonAddress      Reason = "invalid-address"   // a pod's
	ReasonPodPort      Reason = "invalid-pod-port"  // a pod's named port
	ReasonTimestamp    Reason = "invalid-timestamp" // a pod's
)

// Problem is a part of an object that was not understood. It does not allow anything:
//
//   - A peer, port or rule of a [Policy] matches nothing. If its subject or its types are not understood, none of its
//     rules matches, and it isolates every pod that it may select.
//   - A rule of a [ClusterPolicy] with a peer, port or action that is not understood matches nothing if it accepts, and
//     denies everything otherwise, as the API demands. If its subject, tier or priority is not understood, its rules to
//     accept match nothing, and its rules to pass deny what they match. A policy whose tier is not understood is of the
//     tier Admin, and a policy without any subject that is known selects no pod.
type Problem struct {
	Reason Reason
	Place  string // where, for example spec.ingress[0].from[1]
	Text   string // what is wrong, for people
}

// String returns the place and the text.
func (p Problem) String() string { return fmt.Sprintf("%s: %s", p.Place, p.Text) }
