// Package subnet is the lease domain: what the cluster's network looks like, which node owns which part of it, and how
// both are written down.
//
// A cluster has one network [Config]. It gives each IP [Family] in use a [Range]: a network, and the length of the
// subnets it is cut into. Every node owns one subnet a family; the fact is a [Lease], kept under one key in a [Store].
// The formats of config, keys, values and of the subnet file are flannel's, so that nodes of either kind read each
// other.
//
// What a store holds is input from outside: anybody who can write to it can put anything under any key. All of it goes
// through a [View], which decides which leases count, and is bounded in what it takes and remembers; package subnettest
// holds a corpus of what it has to stand.
//
// Everything here is pure: no etcd, no netlink, no goroutine. The store on etcd is in subnet/etcd; what every store must
// do is in subnet/storetest.
package subnet
