// Package etcd keeps the leases of a cluster in etcd (v3 API, servers of 3.4 and later): it is a [subnet.Store].
//
// Keys and values are flannel's: <prefix>/config holds the network config, <prefix>/subnets/<key> a lease each. A lease
// key hangs on an etcd lease, so that it goes when its node does. Two things differ from how flannel uses them. A lease
// is renewed by keeping the etcd lease alive, which writes nothing and so wakes no watcher; and what exists is listed in
// pages at one revision and then watched from the next, so that no start costs a request per lease.
//
// The rights that a user needs: read on <prefix>/config, and read and write on everything below <prefix>/subnets/:
//
//	etcdctl role add selvage
//	etcdctl role grant-permission selvage read /coreos.com/network/config
//	etcdctl role grant-permission selvage --prefix=true readwrite /coreos.com/network/subnets/
//
// What is missing is named when it is missed. The user is best named by a client certificate (its common name): to check a
// password costs etcd some 50 ms of a core, for each node that connects. Certificates, keys, authorities and the file of a
// password can be replaced while we run.
//
// Unary requests go through etcd's client, which knows about tokens and endpoints. The two streams, watch and keep-alive,
// are used directly: the client's own versions of them reconnect by themselves, so that nobody learns that a connection
// was lost and the store behind it may be another one (a restored backup keeps its cluster id); they buffer without
// bound for a slow reader; and its KeepAliveOnce tries again without a pause.
//
//	watch.go     the loop of Watch: snapshot, follow, and again after a fault
//	snapshot.go  everything there is, in pages
//	follow.go    everything that changes, over one stream
//	history.go   whether the store still is the one that was watched
//	claim.go     Claim and Release: the transactions
//	hold.go      Hold: renewal and update of an own lease
//	grant.go     etcd leases: grant, keep alive, revoke
//	release.go   what an operator gives back for a node
//	client.go    the connection; tls.go its certificates, auth.go its tokens; retry.go when it is tried again
//	fault.go     what errors mean and what to do; rights.go which right is missing; outage.go what is said and how often
package etcd
