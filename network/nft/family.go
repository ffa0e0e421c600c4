package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Family holds what differs between the IP families in a table of family inet.
type Family struct {
	Name     string               // suffix of set names: "ipv4"
	Proto    byte                 // NFPROTO_IPV4
	Key      nftables.SetDatatype // of an address
	src, dst uint32               // offsets of the addresses in the IP header, in bytes
}

// Families returns IPv4 and IPv6.
func Families() [2]Family {
	return [2]Family{
		{"ipv4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16},
		{"ipv6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24},
	}
}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return Families()[0]
	}
	return Families()[1]
}

// From matches packets of the family whose source is in a set.
func (f Family) From(set string) []expr.Any { return f.lookup(f.src, set, false) }

// To matches packets of the family whose destination is in a set.
func (f Family) To(set string) []expr.Any { return f.lookup(f.dst, set, false) }

// NotFrom matches packets of the family whose source is not in a set.
func (f Family) NotFrom(set string) []expr.Any { return f.lookup(f.src, set, true) }

// NotTo matches packets of the family whose destination is not in a prefix.
func (f Family) NotTo(p netip.Prefix) []expr.Any {
	length := f.Key.Bytes
	return slices.Concat(f.load(f.dst), []expr.Any{
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1,
			Len: length, Mask: mask(p.Bits(), int(length)), Xor: make([]byte, length),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: p.Masked().Addr().AsSlice()},
	})
}

// lookup matches packets of the family by whether the address at an offset in the IP header is in a set.
func (f Family) lookup(offset uint32, set string, not bool) []expr.Any {
	return append(f.load(offset), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: not})
}

// load matches packets of the family and loads an address.
func (f Family) load(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		Equals(f.Proto),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.Key.Bytes,
			DestRegister: unix.NFT_REG_1},
	}
}

// SwitchFrom applies the verdict that a map has for the packet's source, if it has one.
func (f Family) SwitchFrom(set string) []expr.Any { return f.verdict(f.src, set) }

// SwitchTo applies the verdict that a map has for the packet's destination, if it has one.
func (f Family) SwitchTo(set string) []expr.Any { return f.verdict(f.dst, set) }

func (f Family) verdict(offset uint32, set string) []expr.Any {
	return append(f.load(offset), &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set,
	})
}

// KeyWithPort is the type of an address of the family, a protocol and a port, concatenated: see [Key].
func (f Family) KeyWithPort() nftables.SetDatatype {
	return nftables.MustConcatSetType(f.Key, nftables.TypeInetProto, nftables.TypeInetService)
}

// FromWithPort matches packets of the family whose source, protocol and destination port are in a set, in which they
// are concatenated. A fragment other than the first does not match, nor does a packet of a protocol without ports.
func (f Family) FromWithPort(set string) []expr.Any { return f.lookupWithPort(f.src, set) }

// ToWithPort is FromWithPort for the destination.
func (f Family) ToWithPort(set string) []expr.Any { return f.lookupWithPort(f.dst, set) }

func (f Family) lookupWithPort(offset uint32, set string) []expr.Any {
	next := unix.NFT_REG32_00 + f.Key.Bytes/4
	return append(f.load(offset),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register(next)},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: register(next + 1)},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set})
}

// KeyOfPair is the type of two addresses of the family, concatenated: see [Key].
func (f Family) KeyOfPair() nftables.SetDatatype { return nftables.MustConcatSetType(f.Key, f.Key) }

// FromTo matches packets of the family whose source and destination, concatenated, are in a set.
func (f Family) FromTo(set string) []expr.Any {
	return append(f.load(f.src),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.Key.Bytes,
			DestRegister: register(unix.NFT_REG32_00 + f.Key.Bytes/4)},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set})
}

// KeyOfFlow is the type of a connection in one direction: source, destination, protocol, source port and destination
// port, concatenated: see [Key].
func (f Family) KeyOfFlow() nftables.SetDatatype {
	port := nftables.TypeInetService
	return nftables.MustConcatSetType(f.Key, f.Key, nftables.TypeInetProto, port, port)
}

// OfFlow matches packets of the family that are of a connection, in the direction, in a set. Packets without ports are
// in none.
func (f Family) OfFlow(set string) []expr.Any {
	port := func(offset, register uint32) expr.Any {
		return &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2, DestRegister: register}
	}
	words := f.Key.Bytes / 4
	at := func(word uint32) uint32 { return register(unix.NFT_REG32_00 + word) }
	return append(f.load(f.src),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.Key.Bytes, DestRegister: at(words)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at(2 * words)}, port(0, at(2*words+1)), port(2, at(2*words+2)),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set})
}

// register returns the number by which the kernel lists a register of four bytes (nft_dump_register): if it is the
// first part of one of 16 bytes, that one's. A rule with the other number would not read back as written.
func register(n uint32) uint32 {
	const parts = 4
	if i := n - unix.NFT_REG32_00; i%parts == 0 {
		return unix.NFT_REG_1 + i/parts
	}
	return n
}

// Equals compares the value that was loaded last.
func Equals(b ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: b}
}

// mask returns a mask of length bytes whose first bits are set.
func mask(bits, length int) []byte {
	b := make([]byte, length)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// Intervals returns the family's prefixes as elements of an interval set: the first address of each range, and the
// first address after it. The kernel rejects overlapping ranges, so overlapping and adjacent prefixes are merged. A
// range up to the last address of the family has no end element.
func (f Family) Intervals(prefixes []netip.Prefix) (elements []Element) {
	of := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return FamilyOf(p.Addr()) != f })
	slices.SortFunc(of, netip.Prefix.Compare)
	var end netip.Addr // the first address after the last range
	for i, p := range of {
		next := subnet.LastAddr(p).Next()
		switch {
		case i > 0 && (!end.IsValid() || p.Addr().Less(end)): // inside the range before
			continue
		case i > 0 && p.Addr() == end: // adjacent to it
			elements = elements[:len(elements)-1]
		default:
			elements = append(elements, Element{Key: string(p.Addr().AsSlice())})
		}
		if end = next; end.IsValid() {
			elements = append(elements, Element{Key: string(end.AsSlice()), End: true})
		}
	}
	return elements
}
