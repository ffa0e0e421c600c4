// Package blocking finds who drops the overlay's packets: chains of others at the hook by which packets are forwarded.
//
// In nf_tables, a packet meets every chain at that hook, of all tables, and a drop in any of them is final: no accept of ours,
// in a table of ours, undoes it. All that can be done is to say who drops, and what to put where. The same is true of the
// legacy iptables beside nf_tables.
//
// To say so is worth something only if it is true. So nothing is told by looking for "drop": a chain is walked through, in
// thought, by the packets that matter (walk.go), and told of only if not one of them can come out of it. Those packets are, for
// each network, the first packets of new TCP connections that nobody translated, or is going to, as kube-proxy by its mark:
//
//	arriving  from the network to this node's pods, in by a device of the overlay
//	leaving   from this node's pods to the network, out by a device of the overlay
//
// A rule's condition holds for all of them, for none, or for some, or nobody knows: then the walk goes on both ways. What
// they do not have in common, such as ports, other marks, or the pods' own addresses, is of the last kind, and so is whatever is
// not understood. A firewall that lets even one port through is not told of: somebody has thought about it.
//
// How rules look is decoded in nftables.go (what nft makes, and iptables on nf_tables) and iptables.go (the legacy one).
package blocking
