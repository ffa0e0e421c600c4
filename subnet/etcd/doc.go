// Package etcd keeps the leases of a cluster in etcd (v3 API, servers of 3.4 and later): it is a [subnet.Store].
//
// Keys and values are flannel's: <prefix>/config holds the network config, <prefix>/subnets/<key> a lease each. A
// lease's key is attached to an etcd lease, so that it vanishes with its node. Two things differ from flannel's use of
// them. A lease is renewed by keeping the etcd lease alive, which writes nothing and so wakes no watcher; and what
// exists is listed in pages at one revision and then watched from the next, so that no start costs a request per lease.
//
// A user needs these rights: read on <prefix>/config, and read and write on everything below <prefix>/subnets/:
//
//	etcdctl role add selvage
//	etcdctl role grant-permission selvage read /coreos.com/network/config
//	etcdctl role grant-permission selvage --prefix=true readwrite /coreos.com/network/subnets/
//
// An error names the one that is missing. The user is best named by a client certificate (its common name): checking a
// password costs etcd some 50 ms of a core, for each node that connects. Certificates, keys, authorities and the
// password's file can be replaced while the daemon runs.
//
// Unary requests use etcd's client, which handles tokens and endpoints. The two streams, watch and keep-alive, are used
// directly. The client's own versions of them reconnect silently, which hides that a connection was lost and that the
// store behind it may be another one (a restored backup keeps its cluster id); they buffer without bound for a slow
// reader; and its KeepAliveOnce retries without a pause.
//
//	watch.go     the loop of Watch: snapshot, follow, and again after a fault
//	snapshot.go  everything there is, in pages
//	follow.go    everything that changes, over one stream
//	history.go   whether the store is still the one that was watched
//	claim.go     Claim and Release: the transactions
//	hold.go      Hold: renewal and update of our own lease
//	challenge.go Challenge: whether another node's lease has a live holder
//	grant.go     etcd leases: grant, keep alive, revoke
//	release.go   an operator's release of a node's lease
//	client.go    the connection; tls.go its certificates, auth.go its tokens; retry.go its backoff
//	fault.go     what errors mean and what to do; rights.go which right is missing; package outage what is logged
package etcd
