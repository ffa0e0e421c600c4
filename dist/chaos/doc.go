// Package chaos breaks a lab of nodes in every way there is behind the daemons' back, and measures how long it takes until
// all is right again and what that costs the pods.
//
// What is right is decided by nobody of the product: verify.go says what the leases in the store ask for, reads the
// kernel with a netlink socket of its own, and compares. It is polled without pause while something is broken, and
// meanwhile a pod sends a datagram to a pod on another node every 2 ms.
//
// The overlay is one of IPv4 and IPv6, unless [Options.Families] says otherwise. A fault that has a family is done in both at
// once, and in each alone ([Suite.Turns]); each family is timed by itself, and pods send in both: in the one that is not broken
// nothing may be lost.
//
// On every node there are also things of others (foreign.go), of both families: routes, nexthop objects, rules, a table of
// nf_tables, a VXLAN device, a bridge as Docker has one. Full dumps of them must be the same after every fault.
//
// The faults are in files by what they break: entries.go, device.go, uplink.go and stacked.go (the address is on a device
// on top of the NIC), rulefaults.go (iptables), nftfaults.go (selvage's own tables of nf_tables), direct.go (routes
// without a tunnel), ownside.go (what a node's own pods depend on) and ownsidenamed.go (what of that is only named),
// policyfaults.go (network policies; what is sent over them meanwhile is in policytraffic.go),
// wireguardfaults.go (WireGuard devices and their peers; their desired state is in wireguard.go),
// fastfaults.go and fastforeign.go (the fast path; its desired state is in fastpath.go), daemon.go; agents.go and
// firewalls.go do step by step what other programs do that manage a host's network. The kernel has to know nexthop
// objects (Linux 5.3).
//
// [Options.Faults] lists what can be broken; to add a fault, add a line there. [Suite.Run] does one and says what came of it,
// [Suite.Walk] does random ones. Whether something is put right, and whether foreign things survive, is judged everywhere;
// how long it took, only by the command in cmd/chaos, since a busy machine can make anything slow. [Suite.Rest] breaks
// nothing, and says what a daemon costs that has nothing to do.
package chaos
