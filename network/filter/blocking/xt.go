package blocking

import (
	"encoding/binary"
	"slices"
)

// Both variants of iptables have the same matches and targets (include/uapi/linux/netfilter/xt_*.h).

// match returns the condition of a match.
func match(name string, rev uint32, info []byte) condition {
	switch {
	case name == "comment":
		return condition{Field: nothing}
	case name == "state" && len(info) >= 4:
		return condition{Field: states, Mask: binary.NativeEndian.Uint32(info)}
	case name == "conntrack":
		return conntrack(rev, info)
	case name == "mark" && rev == 1 && len(info) >= 9: // struct xt_mark_mtinfo1
		return condition{
			Field: marks, Not: info[8] != 0,
			Values: []uint32{binary.NativeEndian.Uint32(info)}, Mask: binary.NativeEndian.Uint32(info[4:]),
		}
	case name == "udp" && len(info) >= 9:
		return udp(info)
	case name == "multiport" && rev == 1 && len(info) >= 48:
		return multiport(info)
	}
	return condition{}
}

// udp decodes a struct xt_udp that matches only on the destination port.
func udp(info []byte) condition {
	const invertedSource, invertedTarget = 1, 2 // XT_UDP_INV_SRCPT, XT_UDP_INV_DSTPT
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2*i:]) }
	if port(0) != 0 || port(1) != 0xffff || info[8]&invertedSource != 0 {
		return condition{}
	}
	return condition{Field: ports, Ports: []portSpan{{port(2), port(3)}}, Not: info[8]&invertedTarget != 0}
}

// multiport decodes a struct xt_multiport_v1 that matches only on the destination port.
func multiport(info []byte) condition {
	const target, first, begins, inverted = 1, 2, 32, 47 // XT_MULTIPORT_DESTINATION, offsets
	if info[0] != target {
		return condition{}
	}
	c := condition{Field: ports, Not: info[inverted] != 0}
	for i := 0; i < min(int(info[1]), 15); i++ {
		s := portSpan{First: binary.NativeEndian.Uint16(info[first+2*i:])}
		s.Last = s.First
		if info[begins+i] != 0 && i < 14 { // a range, which ends with the next one
			i++
			s.Last = binary.NativeEndian.Uint16(info[first+2*i:])
		}
		c.Ports = append(c.Ports, s)
	}
	return c
}

// conntrack decodes a struct xt_conntrack_mtinfo1, 2 or 3 that matches only on a connection's state or status.
func conntrack(rev uint32, info []byte) condition {
	const (
		flags, inverted, masks = 146, 148, 150 // offsets
		byState, byStatus      = 1 << 0, 1 << 6
	)
	if rev < 1 || rev > 3 || len(info) < masks+4 {
		return condition{}
	}
	state, status := uint32(info[masks]), uint32(info[masks+1])
	if rev > 1 {
		state, status = uint32(binary.NativeEndian.Uint16(info[masks:])),
			uint32(binary.NativeEndian.Uint16(info[masks+2:]))
	}
	not := binary.NativeEndian.Uint16(info[inverted:])
	switch binary.NativeEndian.Uint16(info[flags:]) {
	case byState:
		return condition{Field: states, Mask: state, Not: not&byState != 0}
	case byStatus:
		return condition{Field: statuses, Mask: status, Not: not&byStatus != 0}
	}
	return condition{}
}

// verdict returns the verdict of a target that is not a chain.
func verdict(name string) kind {
	if name == "REJECT" {
		return drop
	}
	if slices.Contains([]string{
		"LOG", "NFLOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "CT", "NOTRACK", "TCPMSS", "TCPOPTSTRIP", "TRACE",
		"CLASSIFY", "DSCP", "TOS", "TTL", "HL", "ECN", "CHECKSUM", "RATEEST", "AUDIT", "TEE", "LED", "IDLETIMER", "SET",
		"HMARK",
	}, name) {
		return next
	}
	return anything
}
