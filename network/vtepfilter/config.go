package vtepfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Config is what the filter does, but for the peers.
type Config struct {
	Port     uint16         // UDP port of VXLAN
	Networks []netip.Prefix // the overlay's networks, of every family
	// Allow are prefixes from which packets are let in besides the peers', because some network address translation gives
	// a peer's packets another address than its lease says, or because another VXLAN here uses the same port.
	Allow []netip.Prefix
	// Devices are the names of devices by which packets come out of the overlay: the VXLAN devices, and the bridges of
	// pods. A pod's packet is told by its source address, and by this if that is forged. A device that carries the underlay
	// must not be among them, be it a bridge to which pods are connected as well. They need not exist.
	Devices []string
}

// validate reports what no rule could be made of.
func (c Config) validate() error {
	if c.Port == 0 {
		return errors.New("VTEP filter: no port is set")
	}
	for _, p := range slices.Concat(c.Networks, c.Allow) {
		switch {
		case !p.IsValid():
			return errors.New("VTEP filter: a prefix is not set")
		case p != p.Masked():
			return fmt.Errorf("VTEP filter: %s has host bits set, want %s", p, p.Masked())
		case p.Addr().Is4In6():
			return fmt.Errorf("VTEP filter: %s is an IPv4 prefix written as an IPv6 one", p)
		}
	}
	for _, d := range c.Devices {
		if d == "" || len(d) >= unix.IFNAMSIZ || strings.ContainsAny(d, "\x00/") {
			return fmt.Errorf("VTEP filter: %q is not the name of a device", d)
		}
	}
	return nil
}

// checkPeer reports an address that cannot be a peer's.
func checkPeer(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("%q is not the plain address of a peer", a)
	}
	return nil
}
