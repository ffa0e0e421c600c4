// Package filter keeps a node's packet filter fit for the overlay: it lets the overlay's packets be forwarded, and
// masquerades what crosses the overlay's edge.
//
// Why rules are needed at all: Docker and many a hardened host set FORWARD's policy to DROP, and hosts outside the
// cluster know no way back to a pod's address, so what leaves the overlay has to carry the node's.
//
// All of it lives in two chains of our own, one in each table, with one jump to each:
//
//	filter  FORWARD     → SELVAGE-FWD      accept what comes from the overlay or goes to it
//	nat     POSTROUTING → SELVAGE-POSTRTG  leave traffic inside the overlay alone, masquerade what crosses its edge
//
// The package is built like the rest of the network: a [Policy] says what is wanted; pure functions turn it into the text
// that `iptables -S` would print for it (policy.go) and, held against what is there, into the input of one
// `iptables-restore --noflush` run a table (plan.go), which the kernel takes in whole or not at all; [Rules.Ensure] does
// the reading and the running (rules.go, tool.go). It is called again and again, since anybody may flush a table: where
// all is well it reads, runs nothing and changes nothing.
//
// The families share every line of this: IPv6 is another binary and other prefixes. So do the two variants of iptables,
// on nf_tables and on the legacy kernel interface: the one that `iptables` resolves to is the one that is used.
package filter
