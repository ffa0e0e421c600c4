package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is what the programs have to know of the node.
type Config struct {
	Local  netip.Addr // the node's own address on the underlay, IPv4
	Port   uint16     // UDP port of VXLAN
	VNI    uint32
	Device int     // ifindex of the VXLAN device
	MAC    [6]byte // of the VXLAN device
	MTU    int     // of the VXLAN device
	// Established is conntrack's timeout for established TCP connections
	// (net.netfilter.nf_conntrack_tcp_timeout_established). Without it conntrack would forget a connection after five
	// minutes of silence, because it sees none of the acknowledgements. 0 leaves the timeout to conntrack.
	Established time.Duration
	// Life is how long what was learned from a packet of the slow path is used; 0: a second. Then the slow path decides
	// again.
	Life time.Duration
	// DirectSegments has packets of several segments (GRO, or large packets between virtual machines) go from the
	// uplink straight to the pod. That leaves the kernel's mark of a tunnel on them: if the pod forwards them over a
	// bridge of its own, as Docker in a pod does, they are segmented in software there. Otherwise the VXLAN device
	// takes the outer headers off, and they are fast from there on.
	DirectSegments bool
}

// control is what the programs read, but for the generation and the time.
func (c Config) control() (programsControl, error) {
	switch {
	case !c.Local.Is4():
		return programsControl{}, fmt.Errorf("the fast path needs an IPv4 address on the underlay, not %q", c.Local)
	case c.Port == 0 || c.VNI >= 1<<24:
		return programsControl{}, fmt.Errorf("UDP port %d with VNI %d is not VXLAN", c.Port, c.VNI)
	case c.Device <= 0 || c.MTU <= 0 || c.MTU > 1<<16:
		return programsControl{}, fmt.Errorf("device with index %d and MTU %d is no VXLAN device", c.Device, c.MTU)
	case c.Life < 0:
		return programsControl{}, fmt.Errorf("entries cannot live for %s", c.Life)
	case c.Established < 0 || c.Established.Milliseconds() >= 1<<32:
		return programsControl{}, errors.New("the timeout of established connections must be below 49 days")
	}
	if c.Life == 0 {
		c.Life = time.Second
	}
	control := programsControl{
		Life:   uint64(c.Life),
		Device: uint32(c.Device), Mtu: uint32(c.MTU), EstablishedMs: uint32(c.Established.Milliseconds()),
		Local: wire32(c.Local), Vni: asWire32(c.VNI << 8), Port: asWire16(c.Port), Mac: c.MAC,
	}
	if c.DirectSegments {
		control.Direct = 1
	}
	return control, nil
}

// Peer is another node, under the subnet that it has leased.
type Peer struct {
	Address netip.Addr // on the underlay, IPv4
	MAC     [6]byte    // of its VXLAN device
}

// wire32 is an IPv4 address as a program reads it: its bytes in their order.
func wire32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func fromWire32(n uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// asWire32 is a number in network byte order, as a program reads it.
func asWire32(n uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return binary.NativeEndian.Uint32(b[:])
}

func asWire16(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
