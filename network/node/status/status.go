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

	// Prefix is that of the network's keys in the store. With the VNI, it distinguishes the objects of this daemon from
	// those of another one on the same node.
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
	// Quarantined are the first few rejected leases; [Client.Peers] has them all.
	Quarantined []Refusal        `json:"quarantined,omitempty"`
	Entries     map[string]Count `json:"entries"` // by kind of kernel entry, such as route
	Repairs     Repairs          `json:"repairs"`
	// Failures counts the changes that the kernel refused since the start, by kind; they are retried.
	Failures map[string]int `json:"failures,omitempty"`
	Passes   Passes         `json:"passes"`
	Etcd     Etcd           `json:"etcd"`

	SubnetFile string `json:"subnet_file"`
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
	Key         string         `json:"key"`
	Subnets     []netip.Prefix `json:"subnets"`
	EtcdLease   int64          `json:"etcd_lease,string"`
	Reservation bool           `json:"reservation"` // it never expires
	Expires     time.Time      `json:"expires"`     // without a keep-alive; zero: a reservation, or not known yet
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

// Filter is the packet filter.
type Filter struct {
	Mode    string `json:"mode,omitempty"` // how the rules in force are kept: "nftables" or "iptables"
	Code    Reason `json:"code,omitempty"` // why in this mode
	Why     Text   `json:"why,omitempty"`  // the same for people
	InForce bool   `json:"in_force"`
	// Foreign has a text for each of Drops, with what to do about it, and Trouble for each of Troubles.
	Foreign    []Text          `json:"foreign,omitempty"`
	Drops      []FilterDrop    `json:"drops,omitempty"`
	Left       []Text          `json:"left,omitempty"` // rules of an earlier run that could not be removed
	Trouble    []Text          `json:"trouble,omitempty"`
	Troubles   []FilterTrouble `json:"troubles,omitempty"`
	VTEPFilter bool            `json:"vtep_filter"`
}

// FilterDrop is a chain of another program that drops the overlay's packets.
type FilterDrop struct {
	Family   string       `json:"family"` // "IPv4" or "IPv6"
	Table    string       `json:"table"`  // with its family: "ip filter"; without it for legacy iptables
	Chain    string       `json:"chain"`
	Legacy   bool         `json:"legacy,omitempty"` // it belongs to legacy iptables
	Network  netip.Prefix `json:"network"`          // of the overlay, whose packets are dropped
	Text     Text         `json:"text"`             // what drops which packets
	Commands []string     `json:"commands"`         // shell commands that accept the packets
	Advice   Text         `json:"advice"`           // Commands, and alternatives
}

// FilterTrouble is a setting of the packet filter that cannot be applied as the network config asks.
type FilterTrouble struct {
	Code   Reason `json:"code"`
	Text   Text   `json:"text"`
	Advice Text   `json:"advice,omitempty"`
}

// String joins the text and the advice.
func (t FilterTrouble) String() string {
	if t.Advice == "" {
		return string(t.Text)
	}
	return fmt.Sprintf("%s (%s)", t.Text, t.Advice)
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
	Count     int             `json:"count"`             // attachments of pods
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

// UnmanagedPods are pods that depend on what the daemon does not know.
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
}

// Repairs are the external changes that were repaired.
type Repairs struct {
	Total  int           `json:"total"`
	Counts []RepairCount `json:"counts,omitempty"`
	Last   []Repair      `json:"last,omitempty"` // newest first
}

// RepairCount counts the repaired entries of one kind that were missing, or changed.
type RepairCount struct {
	Kind  string `json:"kind"`
	What  string `json:"what"`
	Count int    `json:"count"`
}

// Add counts repairs.
func (r *Repairs) Add(kind, what string, count int) {
	r.Total += count
	for i := range r.Counts {
		if c := &r.Counts[i]; c.Kind == kind && c.What == what {
			c.Count += count
			return
		}
	}
	r.Counts = append(r.Counts, RepairCount{kind, what, count})
}

// Passes is a histogram of the durations of passes that brought the kernel in sync.
type Passes struct {
	Count   uint64     `json:"count"`
	Seconds float64    `json:"seconds"` // in total
	Within  [10]uint64 `json:"within"`  // number of passes within each of passBounds
}

// passBounds are the bounds of Passes.Within, in seconds.
func passBounds() [10]float64 {
	return [10]float64{0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5}
}

// Add counts one pass.
func (p *Passes) Add(took time.Duration) {
	p.Count++
	p.Seconds += took.Seconds()
	for i, bound := range passBounds() {
		if took.Seconds() <= bound {
			p.Within[i]++
		}
	}
}

// Buckets returns Within by bound, in seconds.
func (p *Passes) Buckets() map[float64]uint64 {
	b := make(map[float64]uint64, len(p.Within))
	for i, bound := range passBounds() {
		b[bound] = p.Within[i]
	}
	return b
}

// Repair is one repaired entry.
type Repair struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Key  string    `json:"key"`
	What string    `json:"what"`         // "missing" or "changed"
	By   string    `json:"by,omitempty"` // the process that caused it, if the kernel reported it: "pid 1234 (ip)"
}

// Etcd describes the lease store.
type Etcd struct {
	Endpoint    string            `json:"endpoint,omitempty"` // of the connection in use
	Revision    int64             `json:"revision"`           // up to which the node has seen all changes
	Latency     time.Duration     `json:"latency_ns"`         // of the latest request
	LastContact time.Time         `json:"last_contact"`
	Requests    map[string]uint64 `json:"requests,omitempty"` // since the start, by method
	Failed      map[string]uint64 `json:"failed,omitempty"`
	Sent        uint64            `json:"sent_bytes"`
	Received    uint64            `json:"received_bytes"`
	Outage      *Problem          `json:"outage,omitempty"`
	Access      *EtcdAccess       `json:"access,omitempty"`
}

// EtcdAccess describes how the daemon connects to etcd, without the password.
type EtcdAccess struct {
	Endpoints    []string `json:"endpoints"`
	Prefix       string   `json:"prefix"`
	CAFile       string   `json:"ca_file,omitempty"`
	CertFile     string   `json:"cert_file,omitempty"`
	KeyFile      string   `json:"key_file,omitempty"`
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"`
}

// PeerState is the state of another node's lease.
type PeerState string

// The states of a peer.
const (
	Programmed  PeerState = "programmed"  // the kernel holds all entries of its path
	Pending     PeerState = "pending"     // some entries are missing
	Grace       PeerState = "grace"       // its lease was withdrawn; its entries are retained until Until
	Quarantined PeerState = "quarantined" // its lease was rejected
)

// Peer is another node's lease.
type Peer struct {
	Key      string         `json:"key"`
	Node     string         `json:"node,omitempty"` // empty for a lease of flannel
	Subnets  []netip.Prefix `json:"subnets"`
	PublicIP []netip.Addr   `json:"public_ip"`
	Path     []Text         `json:"path"`  // a text for each of Paths
	Paths    []PeerPath     `json:"paths"` // in the order of Subnets
	State    PeerState      `json:"state"`
	Code     Reason         `json:"code,omitempty"` // why it is not programmed
	Why      Text           `json:"why,omitempty"`  // the same for people
	Until    time.Time      `json:"until,omitzero"` // the end of its grace period
	Reach    []Reach        `json:"reach"`          // in the order of Subnets
}

// ReachState says whether a peer answers through the overlay.
type ReachState string

// The reachability of a peer.
const (
	Reachable   ReachState = "reachable"
	Unreachable ReachState = "unreachable"
	NotProbed   ReachState = "not probed"
)

// Reach is the reachability of a peer in one family, as far as this node has probed it.
type Reach struct {
	State ReachState    `json:"state"`
	Code  Reason        `json:"code,omitempty"`   // why it is not probed
	Since time.Time     `json:"since,omitzero"`   // when the state began
	RTT   time.Duration `json:"rtt_ns,omitempty"` // round-trip time of the latest answer
	Error Text          `json:"error,omitempty"`  // why the latest probe failed, if it could not be sent
}

// Probes counts the probed peers of one family.
type Probes struct {
	Family      string        `json:"family"` // "IPv4" or "IPv6"
	Reachable   int           `json:"reachable"`
	Unreachable int           `json:"unreachable"`
	Waiting     int           `json:"waiting"`              // probed, without a result yet
	MaxRTT      time.Duration `json:"max_rtt_ns,omitempty"` // of the latest answers
	Sent        uint64        `json:"sent"`                 // probes since the start
	Lost        uint64        `json:"lost"`                 // those without an answer
	Off         Reason        `json:"off,omitempty"`        // why no peer is probed
}

// PeerPath is how one subnet of a peer is reached.
type PeerPath struct {
	Device string `json:"device,omitempty"` // empty: there is no route
	Direct bool   `json:"direct"`           // without a tunnel
}

// String returns the path as it is displayed.
func (p PeerPath) String() string {
	if p.Direct {
		return p.Device + " (direct)"
	}
	return p.Device
}

// Explanation is how a node reaches an address, step by step.
type Explanation struct {
	Address netip.Addr `json:"address"`
	Verdict Text       `json:"verdict"` // one sentence
	OK      bool       `json:"ok"`
	Steps   []Step     `json:"steps"`
}

// Mark is the state of a step.
type Mark string

// The marks of a step.
const (
	Right   Mark = "ok"      // desired, and in sync
	Missing Mark = "missing" // desired, and missing or different
	Foreign Mark = "foreign" // not selvage's
	Note    Mark = "-"       // none of these
)

// Step is one step of a packet's path.
type Step struct {
	Kind string `json:"kind"` // lease, route, nexthop, neighbour, fdb, device, uplink, mtu, filter
	Text Text   `json:"text"` // in the syntax of ip and bridge, where it has one
	Mark Mark   `json:"mark"`
	Note Text   `json:"note,omitempty"` // the actual state, or an explanation
}

// Pending returns the number of entries, of all kinds, that are out of sync.
func (s Status) Pending() (n int) {
	for _, c := range s.Entries {
		n += c.Pending
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
