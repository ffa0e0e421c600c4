package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is what the programs have to know of the node, and of its VXLAN device over one underlay. With Direct it is
// about packets without a tunnel, in both families: Local, Port, VNI, MAC and DirectSegments are not used then.
type Config struct {
	Local  netip.Addr // the node's own address on the underlay, IPv4 or IPv6
	Port   uint16     // UDP port of VXLAN
	VNI    uint32
	MAC    [6]byte // of the VXLAN device
	Direct bool    // some peers are reached without a tunnel
	Device int     // ifindex of the VXLAN device; with Direct, of the uplink
	MTU    int     // of that device
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

// way is how packets go that the configuration is about.
func (c Config) way() programsWay {
	switch {
	case c.Direct:
		return programsWayDIRECT
	case c.Local.Is6():
		return programsWayOVER_IPV6
	default:
		return programsWayOVER_IPV4
	}
}

// control is what the programs read, but for the generation and the time.
func (c Config) control() (programsControl, error) {
	switch {
	case !c.Direct && !c.Local.IsValid():
		return programsControl{}, errors.New("the fast path needs the node's address on the underlay")
	case !c.Direct && (c.Port == 0 || c.VNI >= 1<<24):
		return programsControl{}, fmt.Errorf("UDP port %d with VNI %d is not VXLAN", c.Port, c.VNI)
	case c.Device <= 0 || c.MTU <= 0 || c.MTU > 1<<16:
		return programsControl{}, fmt.Errorf("no device has index %d and MTU %d", c.Device, c.MTU)
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
	}
	if !c.Direct {
		control.Local, control.Vni, control.Port = wire(c.Local), asWire32(c.VNI<<8), asWire16(c.Port)
		control.Mac, control.Segments = c.MAC, asByte(c.DirectSegments)
	}
	return control, nil
}

// ways is how many ways there are for packets to another node, each with a configuration of its own.
const ways = int(programsWayWAYS)

// controls are those of all ways. One that is not configured has none of its packets fast.
func controls(configs []Config) (all [ways]programsControl, err error) {
	for _, c := range configs {
		control, err := c.control()
		if err != nil {
			return all, err
		}
		if all[c.way()].Device != 0 {
			return all, errors.New("the fast path takes one VXLAN device over each of IPv4 and IPv6, and one uplink")
		}
		all[c.way()] = control
	}
	for way := range all {
		all[way].Way = uint8(way)
	}
	return all, nil
}

// Peer is another node, under the subnet that it has leased.
type Peer struct {
	Address netip.Addr // on the underlay, IPv4 or IPv6
	MAC     [6]byte    // of its VXLAN device; not used if Direct
	Direct  bool       // packets to it go without a tunnel
}

// wire is an address as a program reads it: its bytes in their order, those of an IPv4 address mapped into IPv6.
func wire(a netip.Addr) [2]uint64 {
	b := a.As16()
	return [2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
}

func fromWire(words [2]uint64) netip.Addr {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], words[0])
	binary.NativeEndian.PutUint64(b[8:], words[1])
	return netip.AddrFrom16(b).Unmap()
}

func asByte(b bool) uint8 {
	if b {
		return 1
	}
	return 0
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
