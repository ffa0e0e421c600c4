package subnet

import (
	"context"
	"net/netip"
	"time"
)

// What a [Store] can do beyond its contract is an optional interface each, found by a type assertion. A caller copes
// with a store that has none of them. The etcd store implements all but [Allocator]; each comment says what a store on
// the Kubernetes API, where a lease is a Node, can implement.

// HealthReporter is implemented by a store that keeps account of its connection. Both methods answer at once, from what
// is known; neither asks the store. Safe for concurrent use.
//
// Kubernetes: all of it, of the API server that is in use.
type HealthReporter interface {
	// Health returns the state of the connection and what has passed over it since the store was made.
	Health() Health
	// Outage returns why Watch has been without the store, and since when; the zero value while Watch works. It is
	// asked at each step of the daemon's loop, and allocates nothing while there is no outage.
	Outage() Outage
}

// Health is the state of a store's connection.
type Health struct {
	Endpoint    string            // HOST:PORT of the connection on which the latest answer came; empty: none yet
	Latency     time.Duration     // of the latest request that was answered, streams excluded
	LastContact time.Time         // of the latest answer; zero: none yet
	LastEvent   time.Time         // when Watch last got a change or a sign of life; zero: none yet, or not known
	Requests    map[string]uint64 // by the store's name of the method, such as "Txn" or "PATCH"; a stream counts once
	Failed      map[string]uint64 // those of Requests that ended in an error and not by our cancellation
	Sent        uint64            // bytes on the wire, as far as the client can count them
	Received    uint64            // the same
	Answers     uint64            // answers to requests and messages on streams
}

// Outage is a time during which the store cannot be used.
type Outage struct {
	Since   time.Time // of the first failed attempt; zero: there is no outage
	Problem Problem   // the latest failure
}

// UnreadReporter is implemented by a store in which a record can be there and not be readable.
//
// Kubernetes: yes, the subnets of a Node of flannel's are read from its spec, by a request of their own.
type UnreadReporter interface {
	// Unread returns which records Watch cannot read. Such a record stays as it was, or is not reported, and is read
	// again with a backoff. It answers at once, from what is known. Safe for concurrent use.
	Unread() Unread
}

// Unread names records that cannot be read, or have not been read yet.
type Unread struct {
	Names   []string  // sorted, see [Record]; none: all can be read. They are shared and must not be changed.
	Problem Problem   // why the first of them cannot be read
	Since   time.Time // when one could not be read while all others could be; zero: all can be read

	// Disputed names records whose subnets others have as well, and which are not verified yet because too many are to
	// be: sorted, shared, and in none of Names. What was known of them first is used meanwhile.
	Disputed      []string
	DisputedSince time.Time // when there was one while there was no other; zero: there is none
}

// Problem says why a store, or a part of it, cannot be used. What a program needs is in Reason and Commands: no program
// reads the text of Err.
type Problem struct {
	Reason Reason
	Err    error // what is wrong, where, and what to do; nil: there is no problem
	// Commands repair it, such as {"etcdctl", "alarm", "disarm"}: a program and its arguments each, without the options
	// that say where the store is; nil: none are known.
	Commands [][]string
}

// Examiner is implemented by a store that can examine itself for a diagnosis.
//
// Kubernetes: endpoints with their version, latency, certificate and clock (the Date header); rights by
// SelfSubjectAccessReview. An API server has no role, so Leader and Learner stay false.
type Examiner interface {
	// Examine asks each endpoint by itself, and for the rights to all that a node does. It changes nothing. An endpoint
	// that has not answered when ctx ends counts as failed.
	Examine(ctx context.Context) Examination
}

// Examination is what [Examiner] found.
type Examination struct {
	Endpoints []EndpointReport // in the order in which they are configured
	// Rights is why this node cannot do what it has to: [ReasonUnauthenticated], [ReasonAnonymous] or
	// [ReasonForbidden], or why that could not be found out. Err is nil if it has all rights.
	Rights Problem
	// CertificateEnds is the end of our own certificate; zero: none is used, or its file cannot be read.
	CertificateEnds time.Time
}

// EndpointReport is the state of one of a store's endpoints.
type EndpointReport struct {
	URL             string
	Problem         Problem // why it cannot be used: nothing below is known then
	Version         string
	Latency         time.Duration // of one request on an open connection
	Leader, Learner bool          // its role, in a store whose members have one
	// Alarms is what an endpoint that answers reports of itself, such as [ReasonNoSpace] or [ReasonNoLeader].
	Alarms          []Problem
	CertificateEnds time.Time      // end of its certificate; zero: the connection is not over TLS
	ClockAhead      *time.Duration // how far its clock is ahead of ours, to a second; nil: unknown
}

// AccessReporter is implemented by a store that can say where it is and how it is reached, so that commands can be
// shown that an operator can run as they stand.
//
// Kubernetes: kind, endpoints, the annotations' prefix and the certificates' files.
type AccessReporter interface {
	// Access never returns a secret, only the files that hold one.
	Access() Access
}

// Access says where a store is and how it is reached.
type Access struct {
	Kind                      StoreKind
	Endpoints                 []string // URLs
	Prefix                    string   // of keys (etcd) or of annotations (Kubernetes)
	Config                    string   // where the network config is: a key (etcd), or the path of a file (Kubernetes)
	CAFile, CertFile, KeyFile string   // PEM files; empty: not used
	Username, PasswordFile    string
	TokenFile, Kubeconfig     string // paths; empty: not used
	Node                      string // this node's own name in a store that has nodes; empty: none, or not known yet
}

// Networked is implemented by a store that is reached over the underlay network.
//
// Kubernetes: both.
type Networked interface {
	// Addresses returns the addresses of the store, configured or connected to, sorted. A peer whose subnet contained
	// one would cut this node off from the store.
	Addresses() []netip.Addr
	// AddressesChanged says that this node's own addresses have changed: connections from an address that is gone are
	// closed, and opened again. TCP is not notified that its address is gone.
	AddressesChanged()
}

// Expirer is implemented by a store whose leases end unless they are renewed.
//
// Kubernetes: no. A lease lasts as long as its Node, however long that is down.
type Expirer interface {
	// Expires returns when a record that is held ends unless it is renewed; zero if it is not held, or never ends.
	Expires(held Record) time.Time
}

// Challenger is implemented by a store in which a node can ask the holder of another node's record whether it is alive.
// A lease that runs for a day says only that its holder was alive within that day.
//
// Kubernetes: no. A record is its node's by name, and there is none to take over.
type Challenger interface {
	// Challenge asks the holder of a record: it changes the record in a way that every [Store.Hold] of it reverts at
	// once, in whatever process. The lease itself stays as it is, so no peer changes anything. It returns true as soon
	// as the change was reverted, and false if it was not for as long as patience while the store answered. now is the
	// record as it is then, for Claim. The error is [ErrTaken] if the record is not r any more, or was claimed or
	// removed meanwhile.
	Challenge(ctx context.Context, r Record, patience time.Duration) (now Record, alive bool, err error)
}

// Allocator is implemented by a store that can give subnets to nodes by itself.
//
// Kubernetes: yes, the controller manager gives a Node its podCIDRs. etcd: no, the node chooses.
type Allocator interface {
	// Allocates reports whether the store chooses the subnets. If so, Claim takes a lease without subnets and returns
	// the record with those that the store gave, or fails with [ErrNotAllocated].
	Allocates() bool
	// Allocation returns the revision at which what the store has of this node was last changed, as Watch has last
	// seen it; 0: it has seen nothing of it. If it has changed since a Claim that failed with [ErrNotAllocated], the
	// node may have its subnets now. After such a change, Watch reports an event, if need be one without records. It
	// answers at once and is asked at each step of the daemon's loop. Safe for concurrent use.
	Allocation() int64
}

// NodeAdviser is implemented by a store in which an operator can say of a node by which addresses other nodes reach it.
//
// Kubernetes: yes, by annotations of the Node.
type NodeAdviser interface {
	// Advice returns what an operator says of this node, as Watch has last seen it. It answers at once and is asked at
	// each step of the daemon's loop. After a change, Watch reports an event, if need be one without records. Safe for
	// concurrent use.
	Advice() NodeAdvice
}

// NodeAdvice is what an operator says of one node. Values are comparable.
type NodeAdvice struct {
	// PublicIP is, by [Family], the address that the flags --public-ip and --public-ipv6 give otherwise, and takes
	// precedence over them. It also chooses the interface. The zero value: no address.
	PublicIP [2]netip.Addr
	// Announced is what the node's lease has as public IP instead of the node's own, which need not be an address of
	// the node. It has no part in the choice of the interface.
	Announced [2]netip.Addr
	// Sources are the names under which the four addresses are set, for messages: "annotation
	// flannel.alpha.coreos.com/node-public-ip".
	PublicIPSource, AnnouncedSource [2]string
	// Zone is the part of the data centre that the node is in; empty: it is not known.
	Zone string
	// Bad says which values cannot be used, and why; empty: all can.
	Bad string
}
