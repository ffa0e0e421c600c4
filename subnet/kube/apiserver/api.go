package apiserver

import (
	"time"
)

// Resource names a kind of objects in the API.
type Resource struct {
	Group     string // such as "networking.k8s.io"; empty: the core group
	Version   string // such as "v1"
	Name      string // plural, lower case, such as "nodes"
	Namespace string // empty: those of all namespaces, or objects that have none
}

// The resources that selvage reads, and TokenReviews, which it creates.
var (
	Nodes      = Resource{Version: "v1", Name: "nodes"}
	Namespaces = Resource{Version: "v1", Name: "namespaces"}
	Pods       = Resource{Version: "v1", Name: "pods"}

	TokenReviews = Resource{Group: "authentication.k8s.io", Version: "v1", Name: "tokenreviews"}
)

// Object is the metadata of an object (meta/v1 ObjectMeta), as far as selvage needs it.
type Object struct {
	Namespace, Name string
	UID             string
	// Version is the resourceVersion. Versions of one resource are compared as numbers, which Kubernetes allows since
	// 1.35 and has always been true of those in etcd.
	Version  int64
	Created  time.Time // creationTimestamp, in seconds
	Deleting bool      // has a deletionTimestamp: it is about to be deleted
	// Annotations are those of [Options.Annotations] that it has.
	Annotations map[string]string
	// Labels are all labels that it has; read by [Client.Labelled] and [Client.Pods] alone.
	Labels map[string]string
	// Zone is the label topology.kubernetes.io/zone.
	Zone string
	// Bad is why the object is malformed or exceeds the limits of this package, such as an annotation of more than
	// [MaxAnnotation] bytes; nil: it is not. The object then has its name and version, and may lack anything else.
	Bad error
}

const (
	// MaxAnnotation is the largest value of an annotation that is kept, in bytes. flannel's and selvage's have some
	// hundred.
	MaxAnnotation = 4 << 10
	// MaxObject is the largest object that is decoded, in bytes. etcd takes 1.5 MB by default.
	MaxObject = 4 << 20
)

// Page is a part of a list of metadata.
type Page = PageOf[Object]

// PageOf is a part of a list.
type PageOf[T any] struct {
	// First is set on the first page of a list. A list begins again if the server has forgotten its version while it
	// was read (410): what came before the page is void.
	First bool
	// Version is the resourceVersion of the whole list, the same on all pages since First. A watch starts from it.
	Version int64
	Store   Identity // as the answer to the list names it
	Objects []T      // at most [PageSize]; the slice is the callee's
}

// PageSize is how many objects are asked for in one request, and passed on in one [Page]. A server that answers from
// its cache ignores it, so that requests may be fewer than pages.
const PageSize = 500

// ListOptions say how a list is made. The zero value is a consistent list: as new as all writes before it.
type ListOptions struct {
	// NotOlderThan allows the server to answer from its cache if that has reached this version; 0: consistent.
	// A server that is behind waits for three seconds, and then answers with [ErrBehind]: its cache has not caught up,
	// or its store was restored from a backup. The version of a consistent list tells.
	NotOlderThan int64
	// AnyVersion allows the server to answer from its cache whatever its age: resourceVersion=0. The version may be
	// older than one that was seen before. Cheapest for the server.
	AnyVersion bool
	// Exactly asks for the objects as they were at this version (resourceVersionMatch=Exact); 0: not. The error is
	// [ErrExpired] if the server has forgotten it, and [ErrBehind] if it has not reached it.
	Exactly int64
	// Name asks for the object of this name alone (a field selector on metadata.name); empty: for all. The server reads
	// one key then, and the list has one object or none. Of a namespaced resource, set [Resource.Namespace] too.
	Name string
	// Fields is a field selector, such as "spec.nodeName=a" for the Pods of a Node; empty: all objects.
	Fields string
}

// Identity tells one store behind an API server from another one at the same address: UIDs of objects that the server
// makes in an empty store, and names in the headers of its answers. A backup keeps them. An administrator who changes
// flow control changes one of them, or both; so may another verb. Either is empty if the server does not name it
// (--enable-priority-and-fairness=false).
type Identity struct {
	FlowSchema    string // X-Kubernetes-PF-FlowSchema-UID
	PriorityLevel string // X-Kubernetes-PF-PriorityLevel-UID
}

// EventType is what happened to an object.
type EventType uint8

const (
	Added EventType = iota
	Modified
	Deleted
	// Bookmark says that all changes up to its Version have been reported. It has no object.
	Bookmark
	// InitialEnd is the bookmark that ends the initial events of a [WatchOptions.Initial] watch.
	InitialEnd
)

// Event is a change of metadata that a watch reports.
type Event = EventOf[Object]

// EventOf is a change that a watch reports.
type EventOf[T any] struct {
	Type EventType
	// Version of the resource after this change: the object's resourceVersion. Of a Deleted it is that of the deletion.
	Version int64
	Object  T // of Deleted, its last state; the zero value of a bookmark
	// Store, of InitialEnd, is what the answer to the watch names.
	Store Identity
}

// WatchOptions say where a watch begins.
type WatchOptions struct {
	// From is the version after which changes are reported: that of a list, of an event or of a bookmark.
	From int64
	// Initial asks for all objects as Added events first, followed by InitialEnd: a list as a stream
	// (sendInitialEvents). The list is then at least as new as From; with From 0, as new as all writes before it. A
	// server that has no streaming lists answers [ErrNoInitial].
	Initial bool
	// Name and Fields are those of [ListOptions].
	Name, Fields string
	// Opened is called once the server has accepted the watch, before any event; nil: not. An error ends the watch.
	Opened func(Identity) error
}

// Node is a Node with what selvage needs of its spec and status.
type Node struct {
	Object
	// PodCIDRs is spec.podCIDRs, or spec.podCIDR if that is empty. As the API has them: host bits may be set, and
	// they may be no prefixes at all (the server does not check all old objects).
	PodCIDRs []string
	// Addresses is status.addresses.
	Addresses []NodeAddress
	// NetworkUnavailable is the condition of that type; nil: there is none.
	NetworkUnavailable *Condition
}

// NodeAddress is one of a Node's status.addresses.
type NodeAddress struct {
	Type    string // such as "InternalIP" or "Hostname"
	Address string
}

// Condition is one of a Node's status.conditions.
type Condition struct {
	Status          string // "True", "False", "Unknown"
	Reason, Message string
	Heartbeat       time.Time // lastHeartbeatTime
	Transition      time.Time // lastTransitionTime
}

// Pod is a Pod with what network policies need of it.
type Pod struct {
	Object
	NodeName    string // spec.nodeName; empty: it is not scheduled
	HostNetwork bool   // spec.hostNetwork
	Phase       string // status.phase, such as "Running"
	// Started is status.startTime, in seconds: when the node's kubelet has taken it in; zero: it has not.
	Started time.Time
	// Addresses is status.podIPs, or status.podIP if that is empty; as the API has them.
	Addresses []string
	// Ports are the named ports of its containers, and of its init containers that always restart.
	Ports []PodPort
}

// PodPort is a named port of a Pod's container.
type PodPort struct {
	Name     string
	Number   int32
	Protocol string // "TCP", "UDP" or "SCTP"
}

// Raw is an object as it is in JSON. Its metadata is decoded.
type Raw struct {
	Object
	JSON []byte // the callee's
}

// NetworkUnavailable is the type of the condition with which a Node says that its network is not set up. While its
// status is "True", nothing is scheduled there.
const NetworkUnavailable = "NetworkUnavailable"
