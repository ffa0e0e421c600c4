// Package ruleset is what nf_tables holds for network policies. It is pure: it makes [nft.Content] of what package
// policy has compiled.
//
// There are three tables, because they change for different reasons, and each exists only while it is needed:
//
//   - The policies' table, of family inet: [Ruleset].
//   - The table of closed addresses, of family inet: [Closed].
//   - The table of sources, of family bridge: [Sources].
//
// # The policies' table
//
//	forward hook, priority filter + 10
//	  egress, and then ingress
//	    established or related: accept
//	    neighbour discovery, router and multicast listener messages: accept
//	    source (egress) or destination (ingress) is in the map: jump to the pod's entry chain
//	    accept
//
// An accept ends one base chain, not the packet's way through the others. So there are two base chains, and to be
// allowed by one is not to be allowed by the other; and neither can undo the drop of another program. The priority is
// after that of other programs' filters, whose drops then need no look at the policies.
//
// Packets that this node made, or that are for it, do not pass the forward hook. Packets between two ports of a bridge
// pass it only with br_netfilter: net.bridge.bridge-nf-call-iptables and -ip6tables have to be 1.
//
// A packet that is denied is counted and logged, to a group, with a prefix that says why: see [Reason]. The limit of
// the rate is for each rule.
package ruleset
