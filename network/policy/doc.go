// Package policy decides what network policies allow. It is pure: it neither watches the API nor changes the kernel.
//
// It knows NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy (policy.networking.k8s.io/v1beta1):
//
//   - [DecodePolicy], [DecodeClusterPolicy], [DecodePod] and [DecodeNamespace] read the API's JSON. What they do not
//     understand does not allow anything: see [Problem].
//   - [Judge] says of one packet whether it is allowed, and which rule of which policy decided. It reads the policies
//     and pods as they are and follows the API's text step by step.
//   - [Compiler] derives from the same objects what nf_tables has to hold: a [Table], and its [Changes]. It shares no
//     code with Judge but the types, and the tests compare the two.
//
// # Who judges
//
// A connection needs the permission of both its ends. Each node judges for its own pods: egress where a connection
// starts, ingress where it ends. Pods with the node's address (hostNetwork) are the node, and are neither selected nor
// peers. The node's own traffic to and from its pods is always allowed, since it carries the probes of the kubelet.
//
// # Which addresses count
//
// Policies select pods by labels, and packets have addresses. An address belongs to the pod that has it in
// status.podIPs, has not ended, and takes precedence: see [Pod.Precedes]. A packet is judged by its addresses in the
// forward hook: after DNAT, so that a Service's connection is judged by its endpoint and the endpoint's port, and
// before masquerading.
//
// No selector of namespaces selects a namespace that is not known, so a cluster policy does not deny anything to its
// pods either: a caller gives a namespace before its pods.
//
// # Order of the tiers
//
// ClusterNetworkPolicy of the tier Admin by priority, then NetworkPolicy, then ClusterNetworkPolicy of the tier
// Baseline. If no tier decides, the connection is allowed. A pod that a NetworkPolicy isolates in a direction never
// gets to the tier Baseline.
//
// # The table
//
//	base chain ──▶ map: the pod's address ──▶ entry chain, shared by pods with the same policies
//	                                            │ jump: cluster policies of the tier Admin
//	                                            │ accept: the pod to itself; drop: invalid packets
//	                                            │ jump: each policy that isolates the pod; then drop
//	                                            ▼ or jump: cluster policies of the tier Baseline
//	                                          policy's chain: a rule for each peer, family and protocol
//	                                            ▼
//	      sets: addresses of the pods of a selector; their named ports; blocks of addresses
//
// A new connection passes the rules of the policies that select its pod, and no others. Rules name sets, and only the
// elements of sets name pods. So a pod that is added or removed, or a namespace whose labels change, changes elements
// and no rule, unless it is the first or the last local pod with its policies. A set exists while a rule needs it, and
// rules exist while a policy selects a local pod.
//
// Pods of one namespace with equal labels are of one kind, and selectors are compared with kinds. So the cost of a
// change does not depend on the number of pods, but on that of the sets in which the pod is.
package policy
