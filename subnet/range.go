package subnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
)

// Range is one family's part of the network [Config]: a network and how it is cut into subnets. The zero value means
// that the family is off. Ranges are comparable.
//
// Where the store gives the nodes their subnets, only Network is set: a subnet can be anywhere in it, and nothing is
// known of a subnet before a node has it. See [ParseAllocatedConfig].
type Range struct {
	Network   netip.Prefix // masked
	SubnetLen int          // prefix length of a node's subnet
	Min, Max  netip.Addr   // first and last subnet that may be leased to a node, by their network address
}

// limits are what flannel allows in a family.
type limits struct {
	defaultLen int // length of a subnet where the network has room
	maxNetwork int // the network may be no longer than this
	maxLen     int // a subnet may be no longer than this
}

// minSplit is by how many bits a subnet must at least be longer than its network: four subnets.
const minSplit = 2

func limitsOf(f Family) limits {
	if f == IPv4 {
		return limits{defaultLen: 24, maxNetwork: 28, maxLen: 30}
	}
	return limits{defaultLen: 64, maxNetwork: 124, maxLen: 126}
}

// Enabled reports whether the family of this range is in use.
func (r Range) Enabled() bool { return r.Network.IsValid() }

// Count is the number of subnets between Min and Max, both included; it saturates at 1<<63.
func (r Range) Count() uint64 {
	if !r.Enabled() || r.allocated() {
		return 0
	}
	last, ok := r.Index(netip.PrefixFrom(r.Max, r.SubnetLen))
	if !ok {
		return 1 << 63
	}
	return last + 1
}

// At returns the i-th subnet that may be leased, counted from Min. i must be below [Range.Count].
func (r Range) At(i uint64) netip.Prefix {
	return netip.PrefixFrom(number(r.Min).add(uint128{0, i}.shl(r.shift())).addr(r.Min.Is4()), r.SubnetLen)
}

// Index is the inverse of [Range.At]. ok is false for what At never returns, so for an index of 1<<63 and above.
func (r Range) Index(p netip.Prefix) (i uint64, ok bool) {
	if !r.Fits(p) {
		return 0, false
	}
	d := number(p.Addr()).sub(number(r.Min)).shr(r.shift())
	return d.lo, d.hi == 0 && d.lo < 1<<63
}

// Fits reports whether p is a subnet that a node may be given: of the configured length and between Min and Max.
func (r Range) Fits(p netip.Prefix) bool {
	return r.Enabled() && !r.allocated() &&
		p.IsValid() && p.Bits() == r.SubnetLen && p == p.Masked() && p.Addr().Is4() == r.Min.Is4() &&
		p.Addr().Compare(r.Min) >= 0 && p.Addr().Compare(r.Max) <= 0
}

// ErrOutside is why a subnet cannot be one of a network that does not contain it.
var ErrOutside = errors.New("is not inside Network")

// CheckPeer says why p cannot be the subnet of some node, or nil. It is wider than [Range.Fits]: a lease from before
// SubnetLen, SubnetMin or SubnetMax were changed is still good.
func (r Range) CheckPeer(p netip.Prefix) error {
	if !r.Enabled() {
		return fmt.Errorf("subnet %s: the family is not enabled in the network config", p)
	}
	if p != p.Masked() {
		return fmt.Errorf("subnet %s has host bits set", p)
	}
	if !r.Network.Contains(p.Addr()) || p.Bits() < r.Network.Bits() {
		return fmt.Errorf("subnet %s %w %s", p, ErrOutside, r.Network)
	}
	shortest, longest := r.Network.Bits()+minSplit, limitsOf(FamilyOf(p.Addr())).maxLen
	if r.allocated() {
		shortest = r.Network.Bits() // of a cluster with one node
	}
	if p.Bits() < shortest || p.Bits() > longest {
		return fmt.Errorf("subnet %s: length is %d, want %d to %d in Network %s",
			p, p.Bits(), shortest, longest, r.Network)
	}
	return nil
}

// allocated reports whether the store chooses the subnets.
func (r Range) allocated() bool { return r.Enabled() && !r.Min.IsValid() }

func (r Range) shift() int { return r.Min.BitLen() - r.SubnetLen }

// subnetAt returns the subnet of the given length that holds a.
func subnetAt(a netip.Addr, length int) netip.Prefix {
	p, _ := a.Prefix(length) // fails for a wrong length only, and lengths come from a checked config
	return p
}

// lastSubnet returns the address of the last subnet of the given length in network.
func lastSubnet(network netip.Prefix, length int) netip.Addr {
	width := network.Addr().BitLen()
	ones := uint128{^uint64(0), ^uint64(0)}
	mask := ones.shr(128 - (length - network.Bits())).shl(width - length)
	return number(network.Addr()).add(mask).addr(network.Addr().Is4())
}

// uint128 is an address as a number; an IPv4 address is in the low 32 bits.
type uint128 struct{ hi, lo uint64 }

func number(a netip.Addr) uint128 {
	if a.Is4() {
		b := a.As4()
		return uint128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (u uint128) addr(is4 bool) netip.Addr {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(u.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], u.hi)
	binary.BigEndian.PutUint64(b[8:], u.lo)
	return netip.AddrFrom16(b)
}

func (u uint128) add(v uint128) uint128 {
	lo, carry := bits.Add64(u.lo, v.lo, 0)
	hi, _ := bits.Add64(u.hi, v.hi, carry)
	return uint128{hi, lo}
}

func (u uint128) sub(v uint128) uint128 {
	lo, borrow := bits.Sub64(u.lo, v.lo, 0)
	hi, _ := bits.Sub64(u.hi, v.hi, borrow)
	return uint128{hi, lo}
}

func (u uint128) shl(n int) uint128 {
	if n >= 64 {
		return uint128{u.lo << (n - 64), 0}
	}
	return uint128{u.hi<<n | u.lo>>(64-n), u.lo << n}
}

func (u uint128) shr(n int) uint128 {
	if n >= 64 {
		return uint128{0, u.hi >> (n - 64)}
	}
	return uint128{u.hi >> n, u.lo>>n | u.hi<<(64-n)}
}

// cover returns the run of indices below [Range.Count] whose subnets share an address with p, of whatever length p is.
func (r Range) cover(p netip.Prefix) (run, bool) {
	if !r.Enabled() || r.allocated() || !p.IsValid() || p.Addr().Is4() != r.Min.Is4() {
		return run{}, false
	}
	first := subnetAt(p.Masked().Addr(), r.SubnetLen).Addr()
	last := first
	if p.Bits() < r.SubnetLen {
		last = lastSubnet(p, r.SubnetLen)
	}
	if first.Compare(r.Max) > 0 || last.Compare(r.Min) < 0 {
		return run{}, false
	}
	if first.Compare(r.Min) < 0 {
		first = r.Min
	}
	if last.Compare(r.Max) > 0 {
		last = r.Max
	}
	i, ok := r.Index(netip.PrefixFrom(first, r.SubnetLen))
	if !ok {
		return run{}, false // past what At is ever asked for
	}
	j, ok := r.Index(netip.PrefixFrom(last, r.SubnetLen))
	if !ok {
		j = 1<<63 - 1
	}
	return run{i, j}, true
}

// absolute returns the number of p counted from the start of Network, in subnets. Unlike [Range.Index] it does not
// depend on Min.
func (r Range) absolute(p netip.Prefix) (uint128, bool) {
	if !r.Fits(p) {
		return uint128{}, false
	}
	return number(p.Addr()).sub(number(r.Network.Addr())).shr(r.shift()), true
}

// atAbsolute is the inverse of absolute; ok is false for a number that this range does not have.
func (r Range) atAbsolute(i uint128) (netip.Prefix, bool) {
	room := r.SubnetLen - r.Network.Bits() // in bits
	if i.shr(room) != (uint128{}) {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(number(r.Network.Addr()).add(i.shl(r.shift())).addr(r.Min.Is4()), r.SubnetLen)
	return p, r.Fits(p)
}
