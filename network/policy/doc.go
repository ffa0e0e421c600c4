// Package policy decides what network policies allow. It is pure: it neither watches the API nor changes the kernel.
//
// It knows NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy (policy.networking.k8s.io/v1beta1):
//
//   - [DecodePolicy], [DecodeClusterPolicy], [DecodePod] and [DecodeNamespace] read the API's JSON. What they do not
//     understand does not allow anything: see [Problem].
//   - [Judge] says of one packet whether it is allowed, and which rule of which policy decided. It reads the policies
//     and pods as they are and follows the API's text step by step.
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
// # Order of the tiers
//
// ClusterNetworkPolicy of the tier Admin by priority, then NetworkPolicy, then ClusterNetworkPolicy of the tier
// Baseline. If no tier decides, the connection is allowed. A pod that a NetworkPolicy isolates in a direction never
// gets to the tier Baseline.
package policy
