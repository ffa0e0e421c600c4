// Package filter keeps a node's packet filter fit for the overlay: it masquerades what crosses the overlay's edge, lets the
// overlay's packets be forwarded as far as that is in its power, and says who else drops them.
//
// Why rules are needed at all: hosts outside the cluster know no way back to a pod's address, so what leaves the overlay has
// to carry the node's; and Docker and many a hardened host set FORWARD's policy to DROP.
//
// There are two ways to keep them, and a [Keeper] chooses between them each time it looks (mode.go, a pure function):
//
// By nftables, in one table of our own, "inet selvage", over netlink, with no program at all (nftables.go and package
// network/nft). It has a chain for masquerading, and sets of the overlay's networks and this node's subnets. It has none that
// accepts what is forwarded: packets meet the chains of all tables at a hook, so an accept in one has no effect on a drop in
// another.
//
// By iptables, in two chains of our own, one in each table, with one jump to each:
//
//	filter  FORWARD     → SELVAGE-FWD      accept what comes from the overlay or goes to it
//	nat     POSTROUTING → SELVAGE-POSTRTG  leave traffic inside the overlay alone, masquerade what crosses its edge
//
// Here an accept counts, as long as it stands before what drops: that is why iptables is chosen where somebody drops in FORWARD.
// A [Policy] says what is wanted; pure functions turn it into the text that `iptables -S` would print for it (policy.go) and,
// held against what is there, into the input of one `iptables-restore --noflush` run a table (plan.go), which the kernel takes
// in whole or not at all; [Rules.Ensure] does the reading and the running (rules.go, tool.go). The families share every line
// of this: IPv6 is another binary and other prefixes. So do the two variants of iptables, on nf_tables and on the legacy kernel
// interface: the one that `iptables` resolves to is the one that is used.
//
// Either way Ensure is called again and again, since anybody may flush a table: where all is well it changes nothing. When the
// mode changes, the new rules are in before the old ones go, so that no connection begins without being masqueraded; what is
// left of an earlier run, in whatever form, and of flannel goes then too (leftovers.go). Who drops the overlay's packets is
// found by package network/filter/blocking.
package filter
