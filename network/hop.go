package network

import "net/netip"

// Hop is the kernel's answer to the question how it sends a packet to an address (RTM_GETROUTE, as ip route get).
type Hop struct {
	Link    string     // name of the interface that the packet leaves by; empty if that has vanished meanwhile
	Gateway netip.Addr // invalid if there is none
	Source  netip.Addr // the source address that the kernel chooses; invalid if there is none
	Local   bool       // the address is this node's own, or a broadcast on one of its interfaces
	Table   uint32     // number of the routing table that has the route; 0: not asked for
	// Broadcast: the address is a broadcast on one of the node's interfaces.
	Broadcast bool
}

// MainTable is the number of the routing table that the overlay's routes are in (RT_TABLE_MAIN).
const MainTable = 254

// Flow is what the kernel routes packets by, see ip-rule(8).
type Flow struct {
	To   netip.Addr
	From netip.Addr // invalid: the kernel chooses
	In   string     // the interface that the packets arrive on; empty: this node sends them
	UDP  uint16     // destination port, if it is UDP; 0: not considered
}

// Rejection is the policy rule or route by which the kernel rejects a flow.
type Rejection struct {
	Text  string // in the words of ip; empty: none was found that explains it
	Table uint32 // of the route; 0: the rule itself rejects the flow, or none was found
}

// String returns the form "via 10.5.29.0 dev flannel.1 src 10.5.7.0".
func (h Hop) String() string {
	text := "dev " + h.Link
	if h.Gateway.IsValid() {
		text = "via " + h.Gateway.String() + " " + text
	}
	if h.Source.IsValid() {
		text += " src " + h.Source.String()
	}
	return text
}
