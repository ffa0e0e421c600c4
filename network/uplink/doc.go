// Package uplink chooses the interface and the addresses that carry the overlay: where a node's VXLAN packets leave,
// and the addresses that its peers send to.
//
// [Read] takes a [Snapshot] of the kernel's interfaces, addresses and default routes. [Options] are what the operator
// asked for: flannel's flags --iface, --iface-regex, --iface-can-reach, --public-ip and --public-ipv6. [Choose] makes a
// [Choice] from both. It is a pure function: after a change in the kernel, take a new snapshot, choose again, and
// compare the result with [Choice.Equal].
//
// Candidates, in order of precedence:
//
//  1. the interfaces of Ifaces, by name or address
//  2. the interfaces that match an expression of IfaceRegexes, by name or address
//  3. without Ifaces and IfaceRegexes: the interface through which the kernel reaches CanReach
//  4. without CanReach: the interface that has the PublicIP
//  5. the interface of the default route, lowest metric first
//
// The first usable candidate is chosen. A usable interface is up and has a usable address of every family in use.
// Options are never overridden: if none of 1 and 2 is usable, that is an error. [Choice.Rejected] keeps the unusable
// interfaces with the reasons, to answer "why was eth1 not chosen".
package uplink
