// Package probe finds out how far packets get to other nodes: by ICMP echo, to a peer's address on the underlay and to one in
// the overlay, small and as large as pods' packets can be, with fragmentation forbidden.
//
// The first look, [Prober.Look], asks the four questions of all peers at once, and is over in a few milliseconds if all is well. Where
// something does not answer, the second, [Prober.LookAgain], asks again and watches by a packet socket what leaves this node and what
// comes back, by which interface and from whom: that tells a packet that never came from one that came and was dropped here.
// Two more questions then separate what one would take for the same:
//
//   - An echo that may make one hop only, to an address behind the peer: the peer answers that its time is exceeded before any
//     of its rules for INPUT or FORWARD is asked. So an answer means that the overlay works, and only ICMP echo is filtered.
//   - An echo through the tunnel from this node's underlay address: its answer comes back beside the tunnel. So it tells
//     whether the way there works when no answer comes back through it.
//
// Nothing is changed by any of it. The package measures; what it means is decided by package doctor.
package probe

import (
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Target is a peer in one family.
type Target struct {
	Key, Node string // of its lease
	Family    subnet.Family
	Subnet    netip.Prefix
	Underlay  netip.Addr // its public IP
	Link      string     // the device by which its subnet is reached, as far as this node wants
	// Tunnel: by VXLAN, so that on the underlay the packets are larger by Overhead.
	Tunnel   bool
	Overhead int
	// Overlay is an address that the peer has in the overlay. With NoDevice, it may have none: then it is one that a pod's
	// bridge would have, asked with a single hop, so that the peer answers in either case.
	Overlay  netip.Addr
	NoDevice bool
	Full     int // size of the largest packets of pods, with all headers
}

// behind returns an address of the peer's subnet that is not the peer's own. (The last address of an IPv4 subnet is its
// broadcast address.)
func (t Target) behind() netip.Addr { return subnet.LastAddr(t.Subnet).Prev() }

// Echo is what became of one question, which is asked a few times.
type Echo struct {
	Size     int  // of the packet, in bytes
	Asked    bool // else nothing below is set
	Answered bool
	RTT      time.Duration
	Failed   string // this node's kernel did not take the packet: why
	// What somebody on the way said of it.
	TooBigFor int    // the largest packet that whoever said it passes on
	Refused   string // why it was not delivered, such as [PortUnreachable]
	By        netip.Addr
	// What was seen of it on interfaces; in the second look only.
	Left  []string  // by which the question left
	Came  []Arrival // answers, whether they were delivered or not
	asked []uint16  // sequence numbers
}

// Arrival is an answer on an interface.
type Arrival struct {
	Interface string
	Outer     netip.Addr // who sent it, if it came in a VXLAN packet; else the zero value
}

// Path is what was found out of a target.
type Path struct {
	Target
	Probed                                       bool // there was time for it
	Underlay, UnderlayFull, Overlay, OverlayFull Echo
	Again                                        *Again // nil: there was no need
}

// Again is what the second look adds.
type Again struct {
	Hop, HopFull Echo // with one hop, to somebody behind the peer
	Outbound     Echo // through the tunnel, from the underlay's address
	// Fits is the size of the largest packet that passes, if small ones do and full ones do not.
	Fits int
	// Tunnel is what somebody said of VXLAN packets to the peer: TooBigFor, Refused, By.
	Tunnel Echo
}

// Works reports whether packets of all sizes get there and back.
func (p Path) Works() bool { return p.Overlay.Answered && p.OverlayFull.Answered }
