// Package blocking finds other agents' chains at the forward hook that drop overlay traffic.
//
// In nf_tables, a packet traverses every chain at the hook, of all tables, and a drop in any of them is final: an
// accept in a table of ours does not override it. The same holds for the legacy iptables beside nf_tables. So such a
// chain can only be reported, with the commands that would accept the traffic.
//
// There must be no false positives. So the package does not search for rules that drop. It evaluates each chain for the
// packets that matter (walk.go), and reports the chain only if it lets none of them pass. The packets are, for each
// network, the first packets of new TCP connections without NAT, and without the mark by which kube-proxy requests it:
//
//	arriving  from the network to this node's pods, in by a device of the overlay
//	leaving   from this node's pods to the network, out by a device of the overlay
//
// A rule's condition holds for all of these packets, for none, or for some or an unknown part; in the last case the
// evaluation follows both branches. Conditions on ports, other marks or single pod addresses are of the last kind, and
// so is any expression that is not understood. Hence a firewall that accepts even one port is not reported: it is a
// policy.
//
// Rules are decoded in nftables.go (those of nft, and of the iptables on nf_tables) and iptables.go (those of the
// legacy iptables).
package blocking
