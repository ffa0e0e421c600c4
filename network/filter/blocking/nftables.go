package blocking

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// register is the content of a register.
type register struct {
	field  field
	length int    // in bytes
	mask   []byte // applied to it; nil: none
	ether  bool   // field family as an EtherType
}

// decoder decodes one rule of nf_tables: its expressions load registers, compare them, and return a verdict.
type decoder struct {
	family    nftables.TableFamily // as far as known
	registers map[uint32]register
	sets      func(name string) (set, bool)
	rule      rule
}

// fromNFTables decodes a rule of a table of the given family. An expression that is not understood becomes an unknown
// condition.
func fromNFTables(f nftables.TableFamily, exprs []nft.Expression, sets func(name string) (set, bool)) rule {
	d := decoder{family: f, registers: map[uint32]register{}, sets: sets}
	for _, e := range exprs {
		d.take(e)
		if d.rule.Kind != next {
			break
		}
	}
	return d.rule
}

func (d *decoder) add(c condition) { d.rule.Conditions = append(d.rule.Conditions, c) }

// take decodes an expression (include/uapi/linux/netfilter/nf_tables.h).
func (d *decoder) take(e nft.Expression) {
	switch e.Name {
	case "meta":
		if e.Attr(unix.NFTA_META_SREG) == nil {
			d.registers[e.Uint32(unix.NFTA_META_DREG)] = meta(e.Uint32(unix.NFTA_META_KEY))
		}
	case "ct":
		if e.Attr(unix.NFTA_CT_SREG) == nil {
			f := map[uint32]field{unix.NFT_CT_STATE: states, unix.NFT_CT_STATUS: statuses}[e.Uint32(unix.NFTA_CT_KEY)]
			d.registers[e.Uint32(unix.NFTA_CT_DREG)] = register{field: f, length: 4}
		}
	case "payload":
		if e.Attr(unix.NFTA_PAYLOAD_SREG) == nil {
			d.registers[e.Uint32(unix.NFTA_PAYLOAD_DREG)] = d.payload(e)
		}
	case "bitwise":
		d.registers[e.Uint32(unix.NFTA_BITWISE_DREG)] = masked(d.registers[e.Uint32(unix.NFTA_BITWISE_SREG)], e)
	case "cmp":
		d.compare(e)
	case "range":
		d.between(e)
	case "lookup":
		d.lookup(e)
	case "immediate":
		d.decide(e)
	case "reject":
		d.rule.Kind = drop
	case "match":
		d.add(match(e.String(unix.NFTA_MATCH_NAME), e.Uint32(unix.NFTA_MATCH_REV), e.Attr(unix.NFTA_MATCH_INFO)))
	case "target":
		d.rule.Kind = verdict(e.String(unix.NFTA_TARGET_NAME))
	case "queue", "tproxy", "synproxy", "nat", "masq", "redir", "fwd":
		d.rule.Kind = anything
	case "counter", "log", "notrack", "last", "dup":
	case "objref":
		const counter, helper = 1, 3 // NFT_OBJECT_…
		if t := e.Uint32(unix.NFTA_OBJREF_IMM_TYPE); t != counter && t != helper {
			d.add(condition{})
		}
	default: // it may load any register, and may end the rule
		clear(d.registers)
		d.add(condition{})
	}
}

func meta(key uint32) register {
	switch key {
	case unix.NFT_META_NFPROTO:
		return register{field: family, length: 1}
	case unix.NFT_META_PROTOCOL:
		return register{field: family, length: 2, ether: true}
	case unix.NFT_META_L4PROTO:
		return register{field: protocols, length: 1}
	case unix.NFT_META_IIFNAME:
		return register{field: inName, length: unix.IFNAMSIZ}
	case unix.NFT_META_OIFNAME:
		return register{field: outName, length: unix.IFNAMSIZ}
	case unix.NFT_META_MARK:
		return register{field: marks, length: 4}
	}
	return register{}
}

// payload returns the field at an offset in the IP header, or the beginning of that field, or the destination port.
func (d *decoder) payload(e nft.Expression) register {
	offset, length := e.Uint32(unix.NFTA_PAYLOAD_OFFSET), e.Uint32(unix.NFTA_PAYLOAD_LEN)
	switch base := e.Uint32(unix.NFTA_PAYLOAD_BASE); {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && length == 2:
		return register{field: ports, length: 2}
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
		return register{}
	}
	type place struct {
		family nftables.TableFamily
		offset uint32
	}
	f := map[place]field{
		{nftables.TableFamilyIPv4, 12}: source,
		{nftables.TableFamilyIPv4, 16}: target,
		{nftables.TableFamilyIPv4, 9}:  protocols,
		{nftables.TableFamilyIPv6, 8}:  source,
		{nftables.TableFamilyIPv6, 24}: target,
		{nftables.TableFamilyIPv6, 6}:  protocols,
	}[place{d.family, offset}]
	longest := uint32(d.addressLength())
	if f == protocols {
		longest = 1
	}
	if f == unknown || length > longest {
		return register{}
	}
	return register{field: f, length: int(length)}
}

// addressLength returns the length of an address of the family, in bytes.
func (d *decoder) addressLength() int {
	if d.family == nftables.TableFamilyIPv6 {
		return 16
	}
	return 4
}

// masked returns the register after a bitwise operation.
func masked(l register, e nft.Expression) register {
	mask, xor := e.Value(unix.NFTA_BITWISE_MASK), e.Value(unix.NFTA_BITWISE_XOR)
	const op = 6 // NFTA_BITWISE_OP; 0 is mask and xor
	if e.Uint32(op) != 0 || len(mask) != l.length || len(bytes.Trim(xor, "\x00")) > 0 || l.mask != nil {
		return register{}
	}
	l.mask = mask
	return l
}

// compare adds the condition of a comparison.
func (d *decoder) compare(e nft.Expression) {
	const equal, unequal = 0, 1 // NFT_CMP_EQ, NFT_CMP_NEQ
	op, data := e.Uint32(unix.NFTA_CMP_OP), e.Value(unix.NFTA_CMP_DATA)
	c := condition{}
	if op == equal || op == unequal {
		c = d.equals(d.registers[e.Uint32(unix.NFTA_CMP_SREG)], data)
	}
	if c.Field != unknown && op == unequal {
		c.Not = !c.Not
	}
	d.add(c)
	// The rest of the rule applies to that family.
	general := d.family == nftables.TableFamilyINet || d.family == nftables.TableFamilyNetdev
	if c.Field == family && !c.Not && len(c.Values) == 1 && general {
		d.family = nftables.TableFamily(c.Values[0])
	}
}

// equals returns the condition that a register equals data.
func (d *decoder) equals(l register, data []byte) condition {
	switch l.field {
	case source, target:
		return d.address(l, data)
	case inName, outName:
		if l.mask != nil || len(data) == 0 {
			return condition{}
		}
		name := unix.ByteSliceToString(data)
		if len(name) == len(data) { // the terminating zero is not compared
			name += "*"
		}
		return condition{Field: l.field, Names: []string{name}}
	case family, protocols:
		if l.mask != nil || len(data) != l.length {
			return condition{}
		}
		return condition{Field: l.field, Values: []uint32{value(l, data)}}
	case states, statuses:
		return flags(l, data)
	case marks:
		return marked(l, data)
	case ports:
		if l.mask == nil && len(data) == l.length {
			port := binary.BigEndian.Uint16(data)
			return condition{Field: ports, Ports: []portSpan{{port, port}}}
		}
	}
	return condition{}
}

// between adds the condition that a port is in a range.
func (d *decoder) between(e nft.Expression) {
	const sreg, op, from, to = 1, 2, 3, 4 // NFTA_RANGE_…
	l, first, last := d.registers[e.Uint32(sreg)], e.Value(from), e.Value(to)
	if l.field != ports || l.mask != nil || len(first) != l.length || len(last) != l.length {
		d.add(condition{})
		return
	}
	d.add(condition{
		Field: ports, Not: e.Uint32(op) != 0, // NFT_RANGE_EQ
		Ports: []portSpan{{binary.BigEndian.Uint16(first), binary.BigEndian.Uint16(last)}},
	})
}

// marked returns the condition that the mark, or the mark under a mask, equals data.
func marked(l register, data []byte) condition {
	if len(data) != l.length {
		return condition{}
	}
	c := condition{Field: marks, Values: []uint32{binary.NativeEndian.Uint32(data)}, Mask: 0xffffffff}
	if l.mask != nil {
		c.Mask = binary.NativeEndian.Uint32(l.mask)
	}
	return c
}

// value returns data as a number; a family as NFPROTO_….
func value(l register, data []byte) uint32 {
	if !l.ether {
		return uint32(data[0])
	}
	return map[uint16]uint32{
		unix.ETH_P_IP: unix.NFPROTO_IPV4, unix.ETH_P_IPV6: unix.NFPROTO_IPV6,
	}[binary.BigEndian.Uint16(data)]
}

// address returns the condition that the beginning of an address, or the address under a mask, equals data.
func (d *decoder) address(l register, data []byte) condition {
	if len(data) > l.length || l.mask != nil && len(data) != l.length {
		return condition{}
	}
	addr, mask := make([]byte, d.addressLength()), make([]byte, d.addressLength())
	copy(addr, data)
	for i := range data {
		mask[i] = 0xff
	}
	copy(mask, l.mask)
	a, _ := netip.AddrFromSlice(addr)
	return addresses(l.field, a, mask, false)
}

// flags returns the condition that bits of a state or status equal data.
func flags(l register, data []byte) condition {
	if len(data) != 4 {
		return condition{}
	}
	number := binary.NativeEndian.Uint32(data)
	switch {
	case l.mask == nil && l.field == states && bits.OnesCount32(number) == 1: // a state has one bit
		return condition{Field: states, Mask: number}
	case l.mask != nil && number == 0:
		return condition{Field: l.field, Mask: binary.NativeEndian.Uint32(l.mask), Not: true}
	case l.mask != nil && number == binary.NativeEndian.Uint32(l.mask) && bits.OnesCount32(number) == 1:
		return condition{Field: l.field, Mask: number}
	}
	return condition{}
}

// decide decodes a verdict.
func (d *decoder) decide(e nft.Expression) {
	code, chain, ok := e.Verdict()
	if !ok {
		d.registers[e.Uint32(unix.NFTA_IMMEDIATE_DREG)] = register{}
		return
	}
	const dropped, accepted = 0, 1 // NF_DROP, NF_ACCEPT
	switch code {
	case dropped:
		d.rule.Kind = drop
	case accepted:
		d.rule.Kind = accept
	case unix.NFT_RETURN:
		d.rule.Kind = ret
	case unix.NFT_JUMP:
		d.rule.Kind, d.rule.To = jump, chain
	case unix.NFT_GOTO:
		d.rule.Kind, d.rule.To = tailCall, chain
	case unix.NFT_CONTINUE:
	case unix.NFT_BREAK:
	default:
		d.rule.Kind = anything
	}
	d.rule.To = strings.Clone(d.rule.To)
}
