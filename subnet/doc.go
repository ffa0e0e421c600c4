// Package subnet is the lease domain: what the cluster's network looks like, which node owns which part of it, and how
// both are written down.
//
// A cluster has one network [Config]. It gives each IP [Family] in use a [Range]: a network, and the length of the
// subnets it is cut into. Every node owns one subnet a family; that is a [Lease], one record in a [Store].
// The formats of config, keys, values and of the subnet file are flannel's, so that nodes of either kind read each
// other.
//
// What a store holds is input from outside: any client with write access can put anything under any key. All of it goes
// through a [View], which decides which leases count, and which is bounded in what it accepts and keeps; package
// subnettest holds a corpus of hostile records.
//
// Everything here is pure: no etcd, no netlink, no goroutine. The store on etcd is in subnet/etcd; the contract of
// every store is in subnet/storetest.
package subnet
