// Package probe measures how far packets get to other nodes. It sends ICMP echo requests to a peer's address on the
// underlay and to one in the overlay, with small packets and with the largest that pods send, and forbids
// fragmentation.
//
// [Prober.Probe] sends these four requests for all peers in parallel, which takes a few milliseconds on a healthy
// network. For peers that do not answer, [Prober.ProbeDetail] repeats them and captures what leaves this node and what
// arrives, with the interface and the source. That distinguishes an answer that never arrived from one that this node
// dropped. Two more requests separate causes with the same symptom:
//
//   - An echo request with a hop limit of one, to an address behind the peer: the peer answers with time exceeded
//     before any of its INPUT or FORWARD rules apply. So an answer means that the overlay works, and only ICMP echo is
//     filtered.
//   - An echo request through the tunnel from this node's underlay address: the reply does not return through the
//     tunnel. So it shows whether the outbound direction works when no reply returns through the tunnel.
//
// Probing changes nothing on any node. The package measures; package doctor draws the conclusions.
package probe

import (
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Target is the path to a peer in one family.
type Target struct {
	Key, Node string // of the peer's lease
	Family    subnet.Family
	Subnet    netip.Prefix
	Underlay  netip.Addr // the peer's public IP
	Link      string     // the device of the desired route to the peer's subnet
	// Tunnel: the path is a VXLAN tunnel, which adds Overhead bytes to each packet on the underlay.
	Tunnel   bool
	Overhead int
	// Overlay is the peer's address in the overlay. A peer without an overlay device (NoDevice) may have none: then it
	// is the address of the pods' bridge, probed with a hop limit of one, so that the peer answers in either case.
	Overlay  netip.Addr
	NoDevice bool
	FullSize int // size of the largest IP packets of pods, in bytes
}

// addressBehind returns an address of the peer's subnet that is not the peer's own. (The last address of an IPv4
// subnet is its broadcast address.)
func (t Target) addressBehind() netip.Addr { return subnet.LastAddr(t.Subnet).Prev() }

// Echo is the result of an echo request, which is sent a few times.
type Echo struct {
	Size      int  // of the IP packet, in bytes
	Sent      bool // false: no request was sent, and the fields below are not set
	Answered  bool
	RTT       time.Duration
	SendError string // why this node's kernel did not send the packet
	// From the ICMP error that a node on the path returned, if any.
	NextHopMTU int        // the largest packet that the node forwards (RFC 1191, RFC 8201), in bytes
	Refused    string     // why the packet was not delivered, such as [PortUnreachable]
	By         netip.Addr // who sent the error or the reply
	// Captured on this node's interfaces, by [Prober.ProbeDetail] only.
	Egress   []string  // the interfaces that the request left by
	Arrivals []Arrival // the answers that arrived, delivered or not
	seqs     []uint16  // sequence numbers of the requests
}

// Arrival is an answer that arrived on an interface.
type Arrival struct {
	Interface string
	Outer     netip.Addr // the source of the VXLAN packet around it; not valid if there is none
}

// Path is what was measured for a target.
type Path struct {
	Target
	Probed                                       bool // false: no time was left to probe it
	Underlay, UnderlayFull, Overlay, OverlayFull Echo
	Detail                                       *Detail // nil: not probed in detail
}

// Detail is what [Prober.ProbeDetail] adds.
type Detail struct {
	OneHop, OneHopFull Echo // with a hop limit of one, to an address behind the peer
	Outbound           Echo // through the tunnel, from the underlay address
	// MaxSize is the size of the largest packet that passes, in bytes. It is set if small packets pass and full ones do
	// not.
	MaxSize int
	// Tunnel holds the ICMP error for VXLAN packets to the peer, if any: NextHopMTU, Refused and By.
	Tunnel Echo
}

// Works reports whether packets of all sizes pass in both directions.
func (p Path) Works() bool { return p.Overlay.Answered && p.OverlayFull.Answered }
