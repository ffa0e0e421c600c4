package chaos

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// ownSide is what a node's own pods depend on, by family, one line for each object: the bridge with its addresses,
// routes and settings, its ports with theirs, and every route that is not unicast, such as a blackhole. It is correct if it
// equals what was read when all pods had been added.
type ownSide [2][]string

// add puts a line into some families.
func (s *ownSide) add(families []subnet.Family, format string, args ...any) {
	for _, f := range families {
		s[f] = append(s[f], fmt.Sprintf(format, args...))
	}
}

// readOwnSide reads it as it is now.
func (h *host) readOwnSide() (s ownSide, err error) {
	links, err := again(h.nl.LinkList)
	if err != nil {
		return s, fmt.Errorf("%s: list devices: %w", h.Name(), err)
	}
	names := make(map[int]string, len(links))
	var bridge netlink.Link
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if l.Attrs().Name == podBridge {
			bridge = l
		}
	}
	if bridge == nil {
		s.add(h.families, "no %s", podBridge)
		return s, nil
	}
	a := bridge.Attrs()
	s.add(h.families, "%s %s mac %s mtu %d up %t arp %t master %q", bridge.Type(), a.Name, a.HardwareAddr, a.MTU,
		a.Flags&net.FlagUp != 0, a.RawFlags&unix.IFF_NOARP == 0, names[a.MasterIndex])
	if err := h.nl.readPorts(names, func(line string) { s.add(h.families, "%s", line) }); err != nil {
		return s, fmt.Errorf("%s: %w", h.Name(), err)
	}
	for _, f := range h.families {
		if err := h.readBridge(bridge, f, &s); err != nil {
			return s, fmt.Errorf("%s: %w", h.Name(), err)
		}
		slices.Sort(s[f])
	}
	return s, nil
}

// readBridge adds what the bridge has of one family.
func (h *host) readBridge(bridge netlink.Link, f subnet.Family, s *ownSide) error {
	of, af := []subnet.Family{f}, int(netlinkFamily(f))
	addrs, err := again(func() ([]netlink.Addr, error) { return h.nl.AddrList(bridge, af) })
	if gone(err) != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	linkLocal := false // which one does not matter
	for _, a := range addrs {
		if linkLocal = linkLocal || a.IP.To4() == nil && a.IP.IsLinkLocalUnicast(); !a.IP.IsLinkLocalUnicast() {
			s.add(of, "address %s scope %d tentative %t", a.IPNet, a.Scope, a.Flags&unix.IFA_F_TENTATIVE != 0)
		}
	}
	if f == subnet.IPv6 {
		s.add(of, "link-local address %t", linkLocal)
	}
	routes, err := again(func() ([]netlink.Route, error) { return h.nl.RouteList(nil, af) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		prefix := prefixOf(r.Dst)
		if r.LinkIndex == bridge.Attrs().Index && !prefix.Addr().IsLinkLocalUnicast() || r.Type != unix.RTN_UNICAST {
			s.add(of, "route %s type %d protocol %d scope %d metric %d src %s",
				prefix, r.Type, r.Protocol, r.Scope, r.Priority, r.Src)
		}
	}
	files := []string{forwardingOf(f, podBridge)}
	if f == subnet.IPv6 {
		files = append(files, disableIPv6(podBridge))
	}
	for _, path := range files {
		value, err := h.ReadFile(path)
		if err != nil { // it goes with the device
			value = []byte(err.Error())
		}
		s.add(of, "%s is %s", path, strings.TrimSpace(string(value)))
	}
	return nil
}

// readPorts calls add with a line for each port of a bridge.
func (r *reader) readPorts(names map[int]string, add func(line string)) error {
	request := make(message, unix.SizeofIfInfomsg)
	request[0] = unix.AF_BRIDGE
	return r.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, request, nil, func(m message) {
		if m[0] != unix.AF_BRIDGE {
			return
		}
		up := binary.NativeEndian.Uint32(m[8:])&unix.IFF_UP != 0
		var name string
		var mtu, master uint32
		settings := map[uint16]byte{}
		m.attributes(unix.SizeofIfInfomsg, func(typ uint16, value []byte) {
			switch typ {
			case unix.IFLA_IFNAME:
				name = unix.ByteSliceToString(value)
			case unix.IFLA_MTU:
				mtu = binary.NativeEndian.Uint32(value)
			case unix.IFLA_MASTER:
				master = binary.NativeEndian.Uint32(value)
			case unix.IFLA_PROTINFO:
				message(value).attributes(0, func(typ uint16, value []byte) {
					if len(value) == 1 {
						settings[typ] = value[0]
					}
				})
			}
		})
		add(fmt.Sprintf("port %s of %s mtu %d up %t state %d hairpin %d learning %d flood %d %d isolated %d",
			name, names[int(master)], mtu, up, settings[nl.IFLA_BRPORT_STATE], settings[nl.IFLA_BRPORT_MODE],
			settings[nl.IFLA_BRPORT_LEARNING], settings[nl.IFLA_BRPORT_UNICAST_FLOOD],
			settings[nl.IFLA_BRPORT_BCAST_FLOOD], settings[nl.IFLA_BRPORT_ISOLATED]))
	})
}

// checkOwnSide says in what the own side differs from how it was when all pods had been added.
func (h *host) checkOwnSide() (p problems, err error) {
	now, err := h.readOwnSide()
	if err != nil {
		return p, err
	}
	for _, f := range h.families {
		p[f] = append(p[f], compare("own side", h.own[f], now[f])...)
	}
	return p.of(h), nil
}
