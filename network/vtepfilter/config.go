package vtepfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Config is the configuration of the filter, without the peers.
type Config struct {
	Port     uint16         // UDP port of VXLAN
	VNI      uint32         // of the overlay; packets with another VNI belong to another overlay on the same port
	Networks []netip.Prefix // the overlay's networks, of every family
	// Allow are further source prefixes to accept: NAT may give a peer's packets another address than that in its
	// lease.
	Allow []netip.Prefix
	// Devices are the devices by which packets leave the overlay: VXLAN devices and the bridges of pods. A pod's packet
	// is identified by its source address, and by the device if that address is forged. A device that carries the
	// underlay must not be listed, even if it is a bridge with pods on it. The devices need not exist.
	Devices []string
}

// validate reports values that cannot be used in a rule.
func (c Config) validate() error {
	if c.Port == 0 {
		return errors.New("VTEP filter: no port is set")
	}
	if c.VNI >= 1<<24 {
		return fmt.Errorf("VTEP filter: VNI %d has more than 24 bits", c.VNI)
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

// checkPeer reports an address that a peer cannot have.
func checkPeer(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("%q is not a plain IPv4 or IPv6 address", a)
	}
	return nil
}
