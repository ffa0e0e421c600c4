// Package status has the types of the reports that a daemon serves over its socket as JSON, and a [Client] for them.
// It does not import the daemon's packages, so a program that reads the reports needs this package only.
//
// The paths begin with the version of the API, /v1. Within a version, fields may be added; existing fields keep their
// names and meanings.
//
// Text for people has the type [Text] and is never parsed: a program uses the fields beside it, such as a [Reason].
package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// DefaultSocket is where the daemon listens.
const DefaultSocket = "/run/selvage/selvaged.sock"

// Paths of the answers.
const (
	PathStatus  = "/v1/status"  // [Status]
	PathPeers   = "/v1/peers"   // []Peer
	PathExplain = "/v1/explain" // [Explanation], of the query's address
	// PathRotateKey is requested with POST, and answered with a [Rotation]. The query's force is "true" or missing.
	PathRotateKey = "/v1/rotate-key"
)

// State is the state of a node.
type State string

// The states of a node.
const (
	Starting State = "starting" // not ready yet: Problems say what it waits for
	Ready    State = "ready"    // the kernel holds all desired entries
	Degraded State = "degraded" // it was ready, and has problems now that are more than warnings: see Problems
)

// Status is the state of a node, as its daemon reports it.
type Status struct {
	Version    string    `json:"version"`          // of selvaged
	Kernel     string    `json:"kernel,omitempty"` // its release
	Node       string    `json:"node"`
	InstanceID string    `json:"instance_id,omitempty"`
	Started    time.Time `json:"started"`

	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Problems []Problem `json:"problems"`
	// Cut are the families, "IPv4" or "IPv6", whose traffic between this node's pods and other nodes is cut by one of
	// the problems.
	Cut []string `json:"cut,omitempty"`

	// Prefix is that of the network's keys or annotations in the store. With the VNI, it distinguishes the objects of
	// this daemon from those of another one on the same node.
	Prefix string `json:"prefix,omitempty"`
	VNI    uint32 `json:"vni,omitempty"` // 1 for a backend without VNIs; 0: not known yet

	Config  json.RawMessage `json:"config,omitempty"` // the network config in use, as it was written
	Lease   *Lease          `json:"lease,omitempty"`
	Uplink  *Uplink         `json:"uplink,omitempty"`
	Backend *Backend        `json:"backend,omitempty"`
	Filter  Filter          `json:"filter"`
	Leases  int             `json:"leases"` // accepted ones, with this node's own
	Peers   PeerCounts      `json:"peers"`
	Probes  []Probes        `json:"probes,omitempty"` // of the families in use
	Pods    *Pods           `json:"pods,omitempty"`   // what this node's pods depend on; nil: none was started
	// Enforcement is that of network policies; nil: the node enforces none, and PoliciesOff says why.
	Enforcement *Enforcement `json:"enforcement,omitempty"`
	PoliciesOff Reason       `json:"policies_off,omitempty"`
	FastPath    *FastPath    `json:"fast_path,omitempty"` // nil: the daemon's flags turn it off
	// Quarantined are the first few rejected leases; [Client.Peers] has them all.
	Quarantined []Refusal        `json:"quarantined,omitempty"`
	Entries     map[string]Count `json:"entries"` // by kind of kernel entry, such as route
	Repairs     Repairs          `json:"repairs"`
	// Failures counts the changes that the kernel refused since the start, by kind; they are retried.
	Failures map[string]int `json:"failures,omitempty"`
	// Overruns counts how often the kernel dropped notifications because they were not read in time.
	Overruns int    `json:"notification_overruns,omitempty"`
	Passes   Passes `json:"passes"`
	Store    Store  `json:"store"`
	// Etcd says the same of etcd, for programs from before there were other stores; nil: the store is another one.
	Etcd *StoreConnection `json:"etcd,omitempty"`

	// Zone is the part of the data centre that the node is in: the label topology.kubernetes.io/zone of its Node;
	// empty: it is not known.
	Zone       string `json:"zone,omitempty"`
	SubnetFile string `json:"subnet_file"`
	Mesh       *Mesh  `json:"mesh,omitempty"` // how nodes ask each other for a summary; nil: they do not
}

// Mesh is how this node serves its summary to other nodes. It asks theirs in the same way.
type Mesh struct {
	Port       uint16 `json:"port"` // the same on all nodes
	CAFile     string `json:"ca_file"`
	CertFile   string `json:"cert_file"`
	KeyFile    string `json:"key_file"`
	ServerName string `json:"server_name,omitempty"` // in all nodes' certificates; empty: they name their public IPs
	// TokenFile is the file of the token that nodes show each other in place of certificates, and Key identifies the
	// key of this node's server, as its lease has it.
	TokenFile string `json:"token_file,omitempty"`
	Key       string `json:"key,omitempty"`
}

// Problem is a current problem of the node.
type Problem struct {
	Topic string    `json:"topic"` // one or two words
	Code  Reason    `json:"code"`
	Kind  string    `json:"kind,omitempty"` // of the kernel entry concerned, if any
	Key   string    `json:"key,omitempty"`  // of that entry
	Text  Text      `json:"text"`
	Since time.Time `json:"since"`
	// Warning: the node is ready all the same.
	Warning bool `json:"warning,omitempty"`
	// Cuts are the families, "IPv4" or "IPv6", whose traffic between this node's pods and all other nodes it cuts, as
	// far as the daemon knows.
	Cuts []string `json:"cuts,omitempty"`
}

// Compare orders problems by topic, then by text.
func (p Problem) Compare(other Problem) int {
	return cmp.Or(cmp.Compare(p.Topic, other.Topic), cmp.Compare(p.Text, other.Text))
}

// Lease is the node's own lease.
type Lease struct {
	Key         string         `json:"key"` // of its record: etcd's key, or the name of the Node
	Subnets     []netip.Prefix `json:"subnets"`
	EtcdLease   int64          `json:"etcd_lease,string"` // 0: it has none
	Reservation bool           `json:"reservation"`       // it never expires, as every lease in Kubernetes
	Expires     time.Time      `json:"expires"`           // without a keep-alive; zero: never, or not known yet
}

// Uplink is the interface that carries the overlay.
type Uplink struct {
	Name     string         `json:"name"`
	MTU      int            `json:"mtu"`
	Local    []netip.Addr   `json:"local"`
	PublicIP []netip.Addr   `json:"public_ip"`
	OnLink   []netip.Prefix `json:"on_link"`
	Why      Text           `json:"why"`           // why this interface
	Not      []Text         `json:"not,omitempty"` // the other interfaces, and why not those
}

// Backend describes the data path.
type Backend struct {
	Type    string   `json:"type"`
	PodMTU  int      `json:"pod_mtu"`
	Devices []Device `json:"devices"`
	// Encrypted is the number of peers to which packets are sent encrypted; nil: the node has no device that encrypts.
	Encrypted *int  `json:"encrypted_peers,omitempty"`
	Move      *Move `json:"move,omitempty"` // nil: the network does not move from one backend to another
	// Encryption says that the network config requires it: [EncryptionRequired] or [EncryptionAwaited]. Empty: it does
	// not.
	Encryption string `json:"encryption,omitempty"`
	// Sessions are those of WireGuard devices.
	Sessions []Sessions `json:"sessions,omitempty"`
	// Rotation is that of keys, of this node or its peers; nil: there is none.
	Rotation *Rotation `json:"key_rotation,omitempty"`
}

// UserSpace is how a WireGuard device is served in user space.
type UserSpace struct {
	PID  int  `json:"pid"`  // of the process; 0: there is none, or it is in another pid namespace
	Ours bool `json:"ours"` // selvaged started the process (--wireguard-userspace), and watches it
	// Ended, Hung and Lost count the processes of the device since the start of the daemon that ended, that were killed
	// because they did not answer, and that were killed because another program had removed their socket. Each was
	// replaced.
	Ended int `json:"ended,omitempty"`
	Hung  int `json:"hung,omitempty"`
	Lost  int `json:"lost,omitempty"`
}

// String says who serves the device: "in user space (process 4711)".
func (u UserSpace) String() string {
	switch {
	case u.PID == 0:
		return "in user space"
	case !u.Ours:
		return fmt.Sprintf("in user space (process %d, which selvaged has not started)", u.PID)
	}
	return fmt.Sprintf("in user space (process %d)", u.PID)
}

// Sessions are what a WireGuard device has with its peers.
type Sessions struct {
	Device string `json:"device"`
	// Live is the number of peers with a session, Silent that of peers which leave packets unanswered, and Idle that of
	// all others: no packet was sent to them for a while.
	Live   int `json:"live"`
	Idle   int `json:"idle"`
	Silent int `json:"silent"`
	// Oldest is the time of the last handshake of the live peer with which that is the longest time ago.
	Oldest time.Time `json:"oldest_handshake,omitzero"`
	// Bytes since the start of the daemon, with the headers of WireGuard.
	Received uint64 `json:"received_bytes"`
	Sent     uint64 `json:"sent_bytes"`
}

// Rotation is a change of the keys by which peers know each other, while nodes run.
type Rotation struct {
	// Stage of the change of this node's key: "requested", "offered", "left", "returning" or "ending"; empty: its key
	// does not change.
	Stage string    `json:"stage,omitempty"`
	Began time.Time `json:"began,omitzero"`
	// NewKey is the public key that this node will have.
	NewKey string `json:"new_key,omitempty"`
	Force  bool   `json:"force,omitempty"` // peers that do not answer are not waited for
	// Waiting are the first few peers that this stage waits for, and More is the number of others.
	Waiting []Waiting `json:"waiting,omitempty"`
	More    int       `json:"more,omitempty"`
	Peers   int       `json:"peers"` // the number of peers that change their keys
}

// Values of [Backend.Encryption].
const (
	EncryptionRequired = "required" // leases of nodes that do not encrypt are rejected
	EncryptionAwaited  = "awaited"  // they will be, once packets to all peers are encrypted
)

// Move is a move of the network from one backend to another while nodes run.
type Move struct {
	From string `json:"from"` // the type of the other one is that of the config
	// Waiting are the first few peers that packets are sent to by the old one, and More is the number of others.
	Waiting []Waiting `json:"waiting"`
	More    int       `json:"more,omitempty"`
}

// Waiting is a peer that a [Move] or a [Rotation] waits for.
type Waiting struct {
	Key  string `json:"key"`
	Node string `json:"node,omitempty"`
	Why  Text   `json:"why"`
}

// Device is one of the node's overlay devices.
type Device struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`          // as the kernel names it: vxlan
	Protocol string     `json:"protocol"`      // as people call it: VXLAN
	VNI      uint32     `json:"vni,omitempty"` // of a VXLAN device
	Port     uint16     `json:"port"`          // UDP port on which it receives; 0: none
	MTU      int        `json:"mtu"`
	Overhead int        `json:"overhead"`           // bytes that it adds to a packet on the underlay
	MAC      string     `json:"mac"`                // empty: it has none
	Local    netip.Addr `json:"local"`              // from which it sends; empty: the kernel chooses
	Settings []Setting  `json:"settings,omitempty"` // further settings to display
	Present  bool       `json:"present"`            // it exists, and is in sync
	// Drops are the kernel's counters of the device; nil: it does not exist, or they cannot be read.
	Drops *Drops `json:"drops,omitempty"`
	// UserSpace says who serves a WireGuard device in user space; nil: the kernel has it.
	UserSpace *UserSpace `json:"user_space,omitempty"`
}

// Setting is one setting of a device, for people.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Drops counts the packets that a device dropped, and its errors, since it was created. The packets are those inside
// the tunnel.
type Drops struct {
	Received      uint64 `json:"rx_dropped"`
	Sent          uint64 `json:"tx_dropped"`
	ReceiveErrors uint64 `json:"rx_errors"`
	SendErrors    uint64 `json:"tx_errors"`
}

// PeerCounts counts the other nodes' leases by state.
type PeerCounts struct {
	Programmed  int `json:"programmed"`
	Pending     int `json:"pending"`
	Grace       int `json:"grace"`       // withdrawn leases that are retained for their grace period
	Quarantined int `json:"quarantined"` // rejected leases
}

// Pods is the node's own side: what its pods depend on, as far as the CNI plugin stored it.
type Pods struct {
	Count     int             `json:"count"`             // attachments of pods that have a record
	Bridges   []PodBridge     `json:"bridges,omitempty"` // by name; an empty name stands for pods without a bridge
	Unmanaged []UnmanagedPods `json:"unmanaged,omitempty"`
	Damaged   int             `json:"damaged,omitempty"` // records that cannot be read
}

// PodBridge is a bridge of pods, with all that these depend on.
type PodBridge struct {
	Name      string         `json:"name"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	MTU       int            `json:"mtu,omitempty"` // 0: any
	Pods      int            `json:"pods"`
	InSync    bool           `json:"in_sync"`
	Differs   []Text         `json:"differs,omitempty"` // the first few objects that are out of sync
	Since     time.Time      `json:"since,omitzero"`    // since when it is out of sync
}

// UnmanagedPods are pods that depend on what the daemon does not know, or that have no record.
type UnmanagedPods struct {
	Count int  `json:"count"`
	Why   Text `json:"why"`
}

// Refusal is a rejected lease.
type Refusal struct {
	Key  string `json:"key"`
	Code Reason `json:"code"`
	Why  Text   `json:"why"`
}

// Count has the numbers of entries of one kind that are desired, present and out of sync.
type Count struct {
	Wanted  int `json:"wanted"`
	Present int `json:"present"`
	Pending int `json:"pending"`
	// Optional: traffic does not depend on these.
	Optional bool `json:"optional,omitempty"`
}

// Pending returns the number of entries that are out of sync, of all kinds on which traffic depends.
func (s Status) Pending() (n int) {
	for _, c := range s.Entries {
		if !c.Optional {
			n += c.Pending
		}
	}
	return n
}

// CutsOf returns the families whose traffic problems cut, each once, in order.
func CutsOf(problems []Problem) (families []string) {
	for _, p := range problems {
		families = append(families, p.Cuts...)
	}
	slices.Sort(families)
	return slices.Compact(families)
}
