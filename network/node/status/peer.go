package status

import (
	"net/netip"
	"time"
)

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
	// MeshKey identifies the key of its server, see [Mesh.Key].
	MeshKey string `json:"mesh_key,omitempty"`
	// Sessions are those of WireGuard devices.
	Sessions []Session `json:"wireguard,omitempty"`
}

// Session is what a WireGuard device and the daemon know of the packets that are exchanged with a peer.
type Session struct {
	Device    string         `json:"device"`
	Endpoint  netip.AddrPort `json:"endpoint"`                // to which packets are sent
	Handshake time.Time      `json:"last_handshake,omitzero"` // the last one that was completed; zero: there was none
	Received  uint64         `json:"received_bytes"`
	Sent      uint64         `json:"sent_bytes"`
	// UnansweredSince is since when packets are sent and none is received; zero: the peer answers, or none is sent.
	UnansweredSince time.Time `json:"unanswered_since,omitzero"`
	LastReceived    time.Time `json:"last_received,omitzero"` // zero: no packets since the daemon's start
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
	// Peers are the probed peers, in the order of their keys.
	Peers []ProbedPeer `json:"peers,omitempty"`
}

// ProbedPeer is a peer that is probed, in one family.
type ProbedPeer struct {
	Key   string        `json:"key"` // of its lease
	State ReachState    `json:"state"`
	Since time.Time     `json:"since,omitzero"`
	RTT   time.Duration `json:"rtt_ns,omitempty"` // round-trip time of the latest answer
	// Recent counts the latest probes, at most 32, and Lost those of them without an answer.
	Recent int `json:"recent"`
	Lost   int `json:"recent_lost"`
	// Lossy: it answers, but probes are lost again and again. One that is lost, or an outage that is over, does not
	// count.
	Lossy bool   `json:"lossy,omitempty"`
	Path  string `json:"path,omitempty"` // PathDirect, or the tunnel's protocol in lower case, such as vxlan
	// FastPath says whether packets of established connections that are sent to it take the fast path: FastPathInUse or
	// FastPathNotInUse. Empty: this node does not use it.
	FastPath string `json:"fast_path,omitempty"`
}

// Values of [ProbedPeer.FastPath].
const (
	FastPathInUse    = "in use"
	FastPathNotInUse = "not in use"
)

// PathDirect is the path of packets that are sent over the underlay without a tunnel.
const PathDirect = "direct"

// PathWireGuard is the path of packets that are sent encrypted.
const PathWireGuard = "wireguard"

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
