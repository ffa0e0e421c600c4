// Package filter keeps the forward and masquerade rules of a node. It masquerades traffic that enters or leaves the
// overlay, accepts forwarded overlay traffic where it can, and reports other agents' rules that drop it.
//
// The rules are needed because hosts outside the cluster have no route to a pod's address, so traffic that leaves the
// overlay must carry the node's address; and because Docker and many hardened hosts set the policy of FORWARD to DROP.
//
// There are two ways to set the rules. A [Keeper] chooses one at each [Keeper.Ensure] (mode.go, a pure function):
//
// With nftables: one table of our own, "inet selvage", set over netlink without any program (nftables.go and package
// network/nft). It has a chain that masquerades, and sets of the overlay's networks and this node's subnets. It has no
// chain that accepts forwarded traffic: a packet traverses the chains of all tables at a hook, so an accept in one
// table does not override a drop in another.
//
// With iptables: two chains of our own, each with one jump to it from a built-in chain:
//
//	filter  FORWARD     → SELVAGE-FWD      accept traffic from and to the overlay
//	nat     POSTROUTING → SELVAGE-POSTRTG  masquerade traffic that enters or leaves the overlay
//
// Here an accept does override a drop that follows it, so iptables is chosen where another agent drops in FORWARD. A
// [Policy] is the desired state. Pure functions turn it into the text that `iptables -S` would print for it
// (policy.go), compare that with the actual rules, and produce the input for one run of `iptables-restore --noflush`
// for each table (plan.go), which the kernel applies completely or not at all. [Rules.Ensure] runs the programs
// (rules.go, tool.go). The families share this code: IPv6 has another program and other prefixes. So do both variants
// of iptables, on nf_tables and on the legacy kernel interface: the variant in use is that of the program named
// iptables.
//
// Ensure is called often, because any process may flush a table; it changes nothing that is in sync. When the mode
// changes, the new rules are set before the old ones are removed, so that every connection is masqueraded. Then
// leftover rules of earlier runs and of flannel are removed (leftovers.go). Package network/filter/blocking finds the
// rules that drop overlay traffic.
package filter
