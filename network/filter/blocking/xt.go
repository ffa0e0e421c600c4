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
	}
	return condition{}
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
