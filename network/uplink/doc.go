// Package uplink says which interface and which addresses carry the overlay: where a node's VXLAN packets leave, and what
// its peers send to.
//
// What the kernel has is a [Snapshot], taken by [Read]; what the operator asked for are [Options], flannel's flags
// --iface, --iface-regex, --iface-can-reach, --public-ip and --public-ipv6. [Choose] makes a [Choice] of the two. It is a
// pure function: whoever watches the kernel takes a new snapshot, chooses again, and compares with [Choice.Equal].
//
// The interface is found in this order:
//
//  1. the first of Ifaces, names or addresses, that fits
//  2. the first interface that matches an expression of IfaceRegexes, tried in turn, by name or by address, and fits
//  3. if neither of them was asked for: the one over which the kernel reaches CanReach
//  4. else the one that has the PublicIP
//  5. else the one of the default route, the lowest metric first
//
// What was asked for is never replaced by something else: if none of 1 and 2 fits, that is an error. To fit, an interface
// has to be up and to have a usable address of every family wanted. One that does not is kept in [Choice.Rejected], with
// the reason, since "why did it not take eth1" is the question that follows.
package uplink
