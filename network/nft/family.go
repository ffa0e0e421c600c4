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
func (f Family) Intervals(prefixes []netip.Prefix) (elements []nftables.SetElement) {
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
			elements = append(elements, nftables.SetElement{Key: p.Addr().AsSlice()})
		}
		if end = next; end.IsValid() {
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}
