package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Family is what differs between the IP families in a table of family inet.
type Family struct {
	Name     string               // as the names of sets end: "ipv4"
	Proto    byte                 // NFPROTO_IPV4
	Key      nftables.SetDatatype // addresses
	src, dst uint32               // where they are in the IP header
}

// Families are both.
func Families() [2]Family {
	return [2]Family{
		{"ipv4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16},
		{"ipv6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24},
	}
}

// FamilyOf is an address's.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return Families()[0]
	}
	return Families()[1]
}

// From matches packets of the family whose source is in a set, To those whose destination is.
func (f Family) From(set string) []expr.Any { return f.lookup(f.src, set, false) }

// To is like [Family.From].
func (f Family) To(set string) []expr.Any { return f.lookup(f.dst, set, false) }

// NotFrom matches packets of the family whose source is not in a set.
func (f Family) NotFrom(set string) []expr.Any { return f.lookup(f.src, set, true) }

// NotTo matches packets of the family whose destination is not in a prefix.
func (f Family) NotTo(p netip.Prefix) []expr.Any {
	length := f.Key.Bytes
	return slices.Concat(f.load(f.dst), []expr.Any{
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: length, Mask: mask(p.Bits(), int(length)), Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: p.Masked().Addr().AsSlice()},
	})
}

// lookup matches packets of the family with an address, at that place in the IP header, that is in a set, or is not.
func (f Family) lookup(offset uint32, set string, not bool) []expr.Any {
	return append(f.load(offset), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: not})
}

// load matches packets of the family and takes an address.
func (f Family) load(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		Equals(f.Proto),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.Key.Bytes, DestRegister: unix.NFT_REG_1},
	}
}

// Equals compares what was loaded last.
func Equals(b ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: b}
}

// mask has the first bits set.
func mask(bits, length int) []byte {
	b := make([]byte, length)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// Intervals returns those of the prefixes that are of the family as the elements of an interval set: where each range begins
// and where it has ended. The kernel refuses ranges that overlap, so what lies in another or borders on it becomes one with
// it. A range up to the last address has no end.
func (f Family) Intervals(prefixes []netip.Prefix) (elements []nftables.SetElement) {
	of := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return FamilyOf(p.Addr()) != f })
	slices.SortFunc(of, netip.Prefix.Compare)
	var end netip.Addr // the first address after the last range
	for i, p := range of {
		next := last(p).Next()
		switch {
		case i > 0 && (!end.IsValid() || p.Addr().Less(end)): // inside
			continue
		case i > 0 && p.Addr() == end: // bordering
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

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
