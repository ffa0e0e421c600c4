package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// nexthop is a nexthop object, of whoever: struct nhmsg and its attributes, include/uapi/linux/nexthop.h. The library
// knows nothing of them.
type nexthop struct {
	id        uint32
	family    uint8
	protocol  uint8
	onLink    bool
	link      int // index of the device; 0: none
	gateway   netip.Addr
	members   []uint32 // of a group
	blackhole bool
	fdb       bool // for an FDB, not for routes
}

// What golang.org/x/sys/unix lacks.
const (
	rtaNHID = 30 // RTA_NH_ID
	nhaFDB  = 11 // NHA_FDB
)

// nexthopID is the number of the object that stands for a gateway: its address. Of IPv6, which goes without, it is one that
// nobody has.
func nexthopID(gateway netip.Addr) uint32 {
	if gateway.Is6() {
		b := gateway.As16()
		return 6<<28 + binary.BigEndian.Uint32(b[4:])
	}
	b := gateway.As4()
	return binary.BigEndian.Uint32(b[:])
}

// String is the object much as ip nexthop shows it, but for the device.
func (n nexthop) String() string {
	s := fmt.Sprintf("nexthop id %d", n.id)
	if n.gateway.IsValid() {
		s += " via " + n.gateway.String()
	}
	if n.onLink {
		s += " onlink"
	}
	if odd := n.odd(); odd != "" {
		s += " " + odd
	}
	return fmt.Sprintf("%s proto %d", s, n.protocol)
}

// odd says what the object is beside a gateway on a device; "" if nothing.
func (n nexthop) odd() string {
	switch {
	case n.blackhole:
		return "blackhole"
	case n.fdb:
		return "fdb"
	case n.members != nil:
		return fmt.Sprintf("group %v", n.members)
	default:
		return ""
	}
}

func parseNexthop(m message) nexthop {
	n := nexthop{family: m[0], protocol: m[2], onLink: binary.NativeEndian.Uint32(m[4:])&unix.RTNH_F_ONLINK != 0}
	m.attributes(unix.SizeofNhmsg, func(typ uint16, value []byte) {
		switch typ {
		case unix.NHA_ID:
			n.id = binary.NativeEndian.Uint32(value)
		case unix.NHA_OIF:
			n.link = int(binary.NativeEndian.Uint32(value))
		case unix.NHA_GATEWAY:
			n.gateway, _ = netip.AddrFromSlice(value)
		case unix.NHA_GROUP:
			for ; len(value) >= unix.SizeofNexthopGrp; value = value[unix.SizeofNexthopGrp:] {
				n.members = append(n.members, binary.NativeEndian.Uint32(value))
			}
		case unix.NHA_BLACKHOLE:
			n.blackhole = true
		case nhaFDB:
			n.fdb = true
		}
	})
	return n
}

// eachNexthop calls f with every object of the namespace.
func (r *reader) eachNexthop(f func(nexthop)) error {
	return r.dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, make(message, unix.SizeofNhmsg), nil, func(m message) { f(parseNexthop(m)) })
}

// setNexthop makes an object, in the place of what there is under its number.
func (r *reader) setNexthop(n nexthop) error {
	header := message{n.family, unix.RT_SCOPE_UNIVERSE, n.protocol, 0, 0, 0, 0, 0}
	if n.onLink {
		binary.NativeEndian.PutUint32(header[4:], unix.RTNH_F_ONLINK)
	}
	parts := []nl.NetlinkRequestData{header, nl.NewRtAttr(unix.NHA_ID, nl.Uint32Attr(n.id))}
	if n.link != 0 {
		parts = append(parts, nl.NewRtAttr(unix.NHA_OIF, nl.Uint32Attr(uint32(n.link))))
	}
	if n.gateway.IsValid() {
		parts = append(parts, nl.NewRtAttr(unix.NHA_GATEWAY, n.gateway.AsSlice()))
	}
	if n.members != nil {
		var group []byte
		for _, id := range n.members {
			group = append(binary.NativeEndian.AppendUint32(group, id), 0, 0, 0, 0)
		}
		parts = append(parts, nl.NewRtAttr(unix.NHA_GROUP, group))
	}
	if n.blackhole {
		parts = append(parts, nl.NewRtAttr(unix.NHA_BLACKHOLE, nil))
	}
	if n.fdb {
		parts = append(parts, nl.NewRtAttr(nhaFDB, nil))
	}
	if err := r.change(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, parts...); err != nil {
		return fmt.Errorf("set %s: %w", n, err)
	}
	return nil
}

// deleteNexthop deletes an object, and with it the routes that go by it.
func (r *reader) deleteNexthop(id uint32) error {
	err := r.change(unix.RTM_DELNEXTHOP, 0, make(message, unix.SizeofNhmsg), nl.NewRtAttr(unix.NHA_ID, nl.Uint32Attr(id)))
	if err != nil {
		return fmt.Errorf("delete nexthop %d: %w", id, err)
	}
	return nil
}

// flushNexthops deletes the objects that which picks, one by one, as ip nexthop flush does: the kernel cannot at once.
func (r *reader) flushNexthops(which func(nexthop) bool) error {
	var ids []uint32
	err := r.eachNexthop(func(n nexthop) {
		if which(n) {
			ids = append(ids, n.id)
		}
	})
	for _, id := range ids {
		// With an object goes the group that it was the last member of.
		if e := r.deleteNexthop(id); !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// routeVia sets the route to a prefix in the main table so that it goes by a nexthop object.
func (r *reader) routeVia(p netip.Prefix, id uint32, protocol uint8) error {
	header := message{netlinkFamily(subnet.FamilyOf(p.Addr())), uint8(p.Bits()), 0, 0, unix.RT_TABLE_MAIN, protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	err := r.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, header,
		nl.NewRtAttr(unix.RTA_DST, p.Addr().AsSlice()), nl.NewRtAttr(rtaNHID, nl.Uint32Attr(id)))
	if err != nil {
		return fmt.Errorf("set the route to %s by nexthop %d: %w", p, id, err)
	}
	return nil
}

// nexthop is the object that leads to a lease's subnet.
func (t tables) nexthop(l subnet.Lease) nexthop {
	gateway := l.Endpoints[t.family].Subnet.Addr()
	return nexthop{id: nexthopID(gateway), family: netlinkFamily(t.family), protocol: routeProtocol, onLink: true, link: t.link.Attrs().Index, gateway: gateway}
}

// foreignNexthop is the number of one of somebody's objects, of each family.
func foreignNexthop(f subnet.Family) uint32 { return [...]uint32{7, 17}[f] }

// foreignNexthops returns somebody's objects of every kind, as a routing daemon has them, out of a device of theirs, and
// the routes by them.
func foreignNexthops(link int) (objects []nexthop, routes map[netip.Prefix]uint32) {
	object := func(id uint32, last byte) nexthop {
		return nexthop{id: id, family: unix.AF_INET, protocol: unix.RTPROT_ZEBRA, link: link, gateway: netip.AddrFrom4([4]byte{192, 168, 42, last})}
	}
	bridging := nexthop{id: 10, family: unix.AF_INET, protocol: unix.RTPROT_ZEBRA, fdb: true, gateway: netip.MustParseAddr("172.31.0.200")}
	return []nexthop{
			object(foreignNexthop(subnet.IPv4), 7), object(8, 8), bridging,
			{id: foreignNexthop(subnet.IPv6), family: unix.AF_INET6, protocol: unix.RTPROT_ZEBRA, link: link, gateway: netip.MustParseAddr("fd00:42::7")},
			{id: 9, family: unix.AF_INET, protocol: unix.RTPROT_ZEBRA, blackhole: true},
			{id: 70, protocol: unix.RTPROT_ZEBRA, members: []uint32{foreignNexthop(subnet.IPv4), 8}},
		}, map[netip.Prefix]uint32{
			netip.MustParsePrefix("198.18.7.0/24"):  foreignNexthop(subnet.IPv4),
			netip.MustParsePrefix("fd00:18:7::/48"): foreignNexthop(subnet.IPv6),
			netip.MustParsePrefix("198.18.9.0/24"):  9,
			netip.MustParsePrefix("198.18.70.0/24"): 70,
		}
}

// plantNexthops makes, or makes again, what [foreignNexthops] says.
func (h *host) plantNexthops() error {
	link, err := h.nl.LinkByName(foreignVXLAN)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", h.Name(), foreignVXLAN, err)
	}
	objects, routes := foreignNexthops(link.Attrs().Index)
	var errs []error
	for _, n := range objects {
		errs = append(errs, h.nl.setNexthop(n))
	}
	for p, id := range routes {
		errs = append(errs, h.nl.routeVia(p, id, unix.RTPROT_ZEBRA))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: add foreign nexthop objects: %w", h.Name(), err)
	}
	return nil
}

// dumpNexthops adds to a dump of foreign things the objects that are not selvage's, and by which object routes go. An
// object out of the overlay's device goes with it.
func (h *host) dumpNexthops(names map[int]string) (dump []string, err error) {
	var others []uint32
	err = h.nl.eachNexthop(func(n nexthop) {
		if n.protocol == routeProtocol || ourDevice(names[n.link]) {
			return
		}
		others = append(others, n.id)
		dump = append(dump, strings.TrimSpace(fmt.Sprintf("%s %s", n, names[n.link])))
	})
	if err != nil {
		return nil, err
	}
	err = h.nl.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, make(message, unix.SizeofRtMsg), nil, func(m message) {
		var to netip.Prefix
		var id uint32
		m.attributes(unix.SizeofRtMsg, func(typ uint16, value []byte) {
			switch typ {
			case unix.RTA_DST:
				a, _ := netip.AddrFromSlice(value)
				to = netip.PrefixFrom(a, int(m[1]))
			case rtaNHID:
				id = binary.NativeEndian.Uint32(value)
			}
		})
		if slices.Contains(others, id) {
			dump = append(dump, fmt.Sprintf("route %s by nexthop %d", to, id))
		}
	})
	return dump, err
}
