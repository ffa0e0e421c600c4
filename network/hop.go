package network

import "net/netip"

// Hop is the kernel's answer to the question how it sends a packet to an address (RTM_GETROUTE, as ip route get).
type Hop struct {
	Link    string     // name of the interface that the packet leaves by; empty if that has vanished meanwhile
	Gateway netip.Addr // invalid if there is none
	Source  netip.Addr // the source address that the kernel chooses; invalid if there is none
	Local   bool       // the address is this node's own, or a broadcast on one of its interfaces
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
