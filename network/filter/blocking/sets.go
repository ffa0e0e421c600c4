package blocking

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// set is a set or map of nf_tables.
type set struct {
	Flags    uint32 // NFT_SET_…
	Length   int    // of a key, in bytes
	Elements []nft.Element
}

// lookup adds the condition that a register is in a set, or is a key of a map. The value of a map is unknown.
func (d *decoder) lookup(e nft.Expression) {
	const inverted = 1 // NFT_LOOKUP_F_INV
	c := condition{}
	if s, ok := d.sets(e.String(unix.NFTA_LOOKUP_SET)); ok {
		c = d.oneOf(d.registers[e.Uint32(unix.NFTA_LOOKUP_SREG)], s)
	}
	if c.Field != unknown && e.Uint32(unix.NFTA_LOOKUP_FLAGS)&inverted != 0 {
		c.Not = true
	}
	d.add(c)
	if e.Attr(unix.NFTA_LOOKUP_DREG) != nil {
		to := e.Uint32(unix.NFTA_LOOKUP_DREG)
		d.registers[to] = register{}
		if to == unix.NFT_REG_VERDICT {
			d.rule.Kind = anything
		}
	}
}

// oneOf returns the condition that a register is in a set. A set that packets update is unknown.
func (d *decoder) oneOf(l register, s set) condition {
	if s.Length != l.length || l.mask != nil || s.Flags&(unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL) != 0 ||
		slices.ContainsFunc(s.Elements, func(e nft.Element) bool { return len(e.Key) != s.Length }) {
		return condition{}
	}
	c := condition{Field: l.field}
	switch l.field {
	case source, target:
		if l.length != d.addressLength() {
			return condition{}
		}
		c.Spans = spans(s)
		return c
	case ports:
		c.Ports = portSpans(s)
		return c
	}
	if s.Flags&unix.NFT_SET_INTERVAL != 0 {
		return condition{}
	}
	for _, e := range s.Elements {
		switch l.field {
		case inName, outName:
			c.Names = append(c.Names, unix.ByteSliceToString([]byte(e.Key)))
		case family, protocols:
			c.Values = append(c.Values, value(l, []byte(e.Key)))
		case states:
			c.Mask |= binary.NativeEndian.Uint32([]byte(e.Key))
		default:
			return condition{}
		}
	}
	return c
}

// inOrder returns the elements of a set of single keys or of ranges by key. A range ends before the next one begins.
func inOrder(s set) []nft.Element {
	elements := slices.Clone(s.Elements)
	slices.SortFunc(elements, func(a, b nft.Element) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 || a.End == b.End {
			return c
		}
		return map[bool]int{true: -1, false: 1}[a.End]
	})
	return elements
}

// spans returns the addresses in a set of single addresses or of ranges.
func spans(s set) (all []span) {
	elements := inOrder(s)
	for i, e := range elements {
		first, ok := netip.AddrFromSlice([]byte(e.Key))
		if !ok || e.End {
			continue
		}
		last := first
		if s.Flags&unix.NFT_SET_INTERVAL != 0 {
			last = netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
			if first.Is4() {
				last = netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
			}
			if i+1 < len(elements) {
				if end, ok := netip.AddrFromSlice([]byte(elements[i+1].Key)); ok {
					last = end.Prev()
				}
			}
		}
		all = append(all, span{first, last})
	}
	return all
}

// portSpans returns the ports in a set of single ports or of ranges.
func portSpans(s set) (all []portSpan) {
	elements := inOrder(s)
	for i, e := range elements {
		if e.End {
			continue
		}
		first := binary.BigEndian.Uint16([]byte(e.Key))
		last := first
		if s.Flags&unix.NFT_SET_INTERVAL != 0 {
			last = 0xffff
			if i+1 < len(elements) {
				last = binary.BigEndian.Uint16([]byte(elements[i+1].Key)) - 1
			}
		}
		all = append(all, portSpan{first, last})
	}
	return all
}
