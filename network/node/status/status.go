// Package status is what a daemon tells of itself over its socket: the types of the answers, which are JSON, and a [Client]
// that asks for them. The package knows nothing of how the daemon comes to them, so that whoever reads them needs no more
// than this.
//
// The paths begin with the version of the answers, /v1. Fields may be added within a version; what there is keeps its name and
// meaning.
package status

import (
	"encoding/json"
	"net/netip"
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

// State is how a node is.
type State string

// The states of a node.
const (
	Starting State = "starting" // not ready yet: Problems say what it waits for
	Ready    State = "ready"    // the kernel holds all that is wanted
	Degraded State = "degraded" // it was ready, and something is not as it is to be: see Problems
)

// Status is how a node is.
type Status struct {
	Version    string    `json:"version"`          // of selvaged
	Kernel     string    `json:"kernel,omitempty"` // its release
	Node       string    `json:"node"`
	InstanceID string    `json:"instance_id,omitempty"`
	Started    time.Time `json:"started"`

	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Problems []Problem `json:"problems"`

	Config  json.RawMessage `json:"config,omitempty"` // the network config in force, as it was written
	Lease   *Lease          `json:"lease,omitempty"`
	Uplink  *Uplink         `json:"uplink,omitempty"`
	Backend *Backend        `json:"backend,omitempty"`
	Filter  Filter          `json:"filter"`
	Leases  int             `json:"leases"` // that are let in, this node's own among them
	Peers   PeerCounts      `json:"peers"`
	// Quarantined are the first of the leases that are not let in; [Client.Peers] has them all.
	Quarantined []Refusal        `json:"quarantined,omitempty"`
	Entries     map[string]Count `json:"entries"` // by kind: vtep, link, address, fdb, neighbour, nexthop, route, sysctl
	Repairs     Repairs          `json:"repairs"`
	// Failures is how many changes the kernel refused since the start, by kind; they are tried again.
	Failures map[string]int `json:"failures,omitempty"`
	Passes   Passes         `json:"passes"`
	Etcd     Etcd           `json:"etcd"`

	SubnetFile string `json:"subnet_file"`
}

// AheadTopic is the topic of a [Problem] that is a route of somebody else's, which the kernel takes before one of selvage's.
const AheadTopic = "foreign route"

// Problem is something that is not as it is to be, now.
type Problem struct {
	Topic string    `json:"topic"` // what it is about, in a word or two
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}

// Lease is the node's own.
type Lease struct {
	Key         string         `json:"key"`
	Subnets     []netip.Prefix `json:"subnets"`
	EtcdLease   int64          `json:"etcd_lease,string"`
	Reservation bool           `json:"reservation"` // it never expires
	Expires     time.Time      `json:"expires"`     // unless it is kept alive until then; zero for a reservation, or if it is not known
}

// Uplink is the interface that carries the overlay.
type Uplink struct {
	Name     string         `json:"name"`
	MTU      int            `json:"mtu"`
	Local    []netip.Addr   `json:"local"`
	PublicIP []netip.Addr   `json:"public_ip"`
	OnLink   []netip.Prefix `json:"on_link"`
	Why      string         `json:"why"`
	Not      []string       `json:"not,omitempty"` // the other interfaces, and why not those
}

// Backend is how packets are carried.
type Backend struct {
	Type    string   `json:"type"`
	PodMTU  int      `json:"pod_mtu"`
	Devices []Device `json:"devices"`
}

// Device is one of the node's overlay devices.
type Device struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`          // as the kernel names it: vxlan
	VNI      uint32     `json:"vni,omitempty"` // of a VXLAN device
	Port     uint16     `json:"port"`          // UDP port on which it receives; 0: none
	MTU      int        `json:"mtu"`
	Overhead int        `json:"overhead"`           // bytes that it adds to a packet on the underlay
	MAC      string     `json:"mac"`                // empty: it has none
	Local    netip.Addr `json:"local"`              // from which it sends; empty: the kernel chooses
	Settings []Setting  `json:"settings,omitempty"` // what else there is to show of it
	Present  bool       `json:"present"`            // it is there, and as it is to be
	// Drops is what the kernel counts of the device; nil: there is none, or it does not say.
	Drops *Drops `json:"drops,omitempty"`
}

// Setting is one setting of a device, as people read it.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Drops is how many packets a device dropped, or could not send or take for an error, since it was made. Those are of the overlay,
// without its headers.
type Drops struct {
	Received      uint64 `json:"rx_dropped"`
	Sent          uint64 `json:"tx_dropped"`
	ReceiveErrors uint64 `json:"rx_errors"`
	SendErrors    uint64 `json:"tx_errors"`
}

// Filter is the packet filter.
type Filter struct {
	Mode       string   `json:"mode,omitempty"` // "nftables", "iptables": by which the rules are kept that are in
	Why        string   `json:"why,omitempty"`
	InForce    bool     `json:"in_force"`
	Foreign    []string `json:"foreign,omitempty"` // what of others drops the overlay's packets
	Left       []string `json:"left,omitempty"`    // rules of another time that could not be removed
	Trouble    []string `json:"trouble,omitempty"` // what the network config wishes for and cannot be had, and what cannot be looked at
	VTEPFilter bool     `json:"vtep_filter"`
}

// PeerCounts is how many other nodes there are.
type PeerCounts struct {
	Programmed  int `json:"programmed"`
	Pending     int `json:"pending"`
	Grace       int `json:"grace"`       // whose lease is gone, and who are kept for a while
	Quarantined int `json:"quarantined"` // leases that are not let in
}

// Refusal is of a lease that is not let in.
type Refusal struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// Count is how many objects of one kind are wanted, there, and differ.
type Count struct {
	Wanted  int `json:"wanted"`
	Present int `json:"present"`
	Pending int `json:"pending"`
}

// Repairs is what others changed and was set right.
type Repairs struct {
	Total  int           `json:"total"`
	Counts []RepairCount `json:"counts,omitempty"`
	Last   []Repair      `json:"last,omitempty"` // the newest first
}

// RepairCount is how many objects of one kind were set right that had been missing, or changed.
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

// Passes is how long the node took each time to bring the kernel to what is wanted.
type Passes struct {
	Count   uint64     `json:"count"`
	Seconds float64    `json:"seconds"` // all together
	Within  [10]uint64 `json:"within"`  // how many took no longer than each of PassBounds
}

// PassBounds are the bounds of Passes.Within, in seconds.
func PassBounds() [10]float64 {
	return [10]float64{0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5}
}

// Add takes in one pass.
func (p *Passes) Add(took time.Duration) {
	p.Count++
	p.Seconds += took.Seconds()
	for i, bound := range PassBounds() {
		if took.Seconds() <= bound {
			p.Within[i]++
		}
	}
}

// Buckets is Within by bound.
func (p *Passes) Buckets() map[float64]uint64 {
	b := make(map[float64]uint64, len(p.Within))
	for i, bound := range PassBounds() {
		b[bound] = p.Within[i]
	}
	return b
}

// Repair is one object that was set right.
type Repair struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Key  string    `json:"key"`
	What string    `json:"what"`         // "missing" or "changed"
	By   string    `json:"by,omitempty"` // who did that, as far as the kernel told: "pid 1234 (ip)"
}

// Etcd is the lease store.
type Etcd struct {
	Endpoint    string            `json:"endpoint,omitempty"` // of the connection in use
	Revision    int64             `json:"revision"`           // that the node has seen everything of
	Latency     time.Duration     `json:"latency_ns"`         // of the latest request
	LastContact time.Time         `json:"last_contact"`
	Requests    map[string]uint64 `json:"requests,omitempty"` // since the start, by method
	Failed      map[string]uint64 `json:"failed,omitempty"`
	Sent        uint64            `json:"sent_bytes"`
	Received    uint64            `json:"received_bytes"`
	Outage      *Problem          `json:"outage,omitempty"`
	Access      *EtcdAccess       `json:"access,omitempty"`
}

// EtcdAccess is where etcd is and how the daemon speaks to it, but for the password.
type EtcdAccess struct {
	Endpoints    []string `json:"endpoints"`
	Prefix       string   `json:"prefix"`
	CAFile       string   `json:"ca_file,omitempty"`
	CertFile     string   `json:"cert_file,omitempty"`
	KeyFile      string   `json:"key_file,omitempty"`
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"`
}

// PeerState is how another node is seen from this one.
type PeerState string

// The states of a peer.
const (
	Programmed  PeerState = "programmed" // the kernel holds all that leads to it
	Pending     PeerState = "pending"
	Grace       PeerState = "grace"
	Quarantined PeerState = "quarantined"
)

// NotInPlace ends the reason of a peer of which something is not in the kernel yet, after what that is.
const NotInPlace = " is not in place yet"

// Peer is another node's lease.
type Peer struct {
	Key      string         `json:"key"`
	Node     string         `json:"node,omitempty"` // empty for flannel's
	Subnets  []netip.Prefix `json:"subnets"`
	PublicIP []netip.Addr   `json:"public_ip"`
	Path     []string       `json:"path"` // by which device each subnet is reached, in the order of Subnets
	State    PeerState      `json:"state"`
	Why      string         `json:"why,omitempty"`  // it is not programmed
	Until    time.Time      `json:"until,omitzero"` // the end of its grace
}

// Explanation is how a node reaches an address.
type Explanation struct {
	Address netip.Addr `json:"address"`
	Verdict string     `json:"verdict"` // one sentence
	OK      bool       `json:"ok"`
	Steps   []Step     `json:"steps"`
}

// Mark is how far a step is as it is to be.
type Mark string

// The marks of a step.
const (
	Right   Mark = "ok"      // wanted and there
	Missing Mark = "missing" // wanted, and not there or not so
	Foreign Mark = "foreign" // there, and not ours
	Note    Mark = "-"       // neither wanted nor unwanted
)

// Step is one thing on the way.
type Step struct {
	Kind string `json:"kind"` // lease, route, nexthop, neighbour, fdb, device, uplink, mtu, filter
	Text string `json:"text"` // in the words of ip and bridge, where there are
	Mark Mark   `json:"mark"`
	Note string `json:"note,omitempty"` // what is there instead, or what it means
}

// Pending is how many objects differ, of all kinds.
func (s Status) Pending() (n int) {
	for _, c := range s.Entries {
		n += c.Pending
	}
	return n
}
