package vtep

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// family is what differs between the IP families.
type family struct {
	name     string // as the names of sets end
	proto    byte
	key      nftables.SetDatatype // addresses
	src, dst uint32               // where they are in the IP header
}

func families() [2]family {
	return [2]family{
		{"ipv4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16},
		{"ipv6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24},
	}
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families()[0]
	}
	return families()[1]
}

// The names of sets: the first three of a family.
func (f family) peers() string   { return "peers-" + f.name }
func (f family) allow() string   { return "allow-" + f.name }
func (f family) overlay() string { return "overlay-" + f.name }

const devicesSet = "devices"

// set is a set of the table.
type set struct {
	name     string
	key      nftables.SetDatatype
	interval bool
	filled   bool                  // by the configuration; else it holds peers
	elements []nftables.SetElement // what it holds if so
}

// sets returns all sets of the table.
func (c Config) sets() (sets []set) {
	for _, f := range families() {
		in := func(prefixes []netip.Prefix) []nftables.SetElement {
			return intervals(slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return familyOf(p.Addr()) != f }))
		}
		sets = append(sets,
			set{name: f.peers(), key: f.key},
			set{name: f.allow(), key: f.key, interval: true, filled: true, elements: in(c.Allow)},
			set{name: f.overlay(), key: f.key, interval: true, filled: true, elements: in(c.Networks)})
	}
	devices := set{name: devicesSet, key: nftables.TypeIFName, filled: true}
	names := slices.Clone(c.Devices)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		devices.elements = append(devices.elements, nftables.SetElement{Key: key})
	}
	return append(sets, devices)
}

// intervals returns prefixes of one family as the elements of an interval set: where each range begins and where it has
// ended. The kernel refuses ranges that overlap, so what lies in another or borders on it becomes one with it. A range up
// to the last address has no end.
func intervals(prefixes []netip.Prefix) (elements []nftables.SetElement) {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	var end netip.Addr // the first address after the last range
	for i, p := range prefixes {
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

// definition is what can be told of a set but for its elements.
type definition struct {
	key, length, size                                 uint32
	interval, constant, verdicts, timeout, dyn, joint bool
}

func (s set) definition() definition {
	return definition{key: s.key.GetNFTMagic(), length: s.key.Bytes, interval: s.interval}
}

func definitionOf(s *nftables.Set) definition {
	return definition{
		key: s.KeyType.GetNFTMagic(), length: s.KeyType.Bytes, size: s.Size,
		interval: s.Interval, constant: s.Constant, verdicts: s.IsMap, timeout: s.HasTimeout, dyn: s.Dynamic, joint: s.Concatenation,
	}
}

// in returns the set as the library has it, in a table. The byte order is for the nft program, which shows names by it.
func (s set) in(t *nftables.Table, id uint32) *nftables.Set {
	x := &nftables.Set{Table: t, ID: id, Name: s.name, KeyType: s.key, Interval: s.interval, KeyByteOrder: binaryutil.BigEndian}
	if s.key == nftables.TypeIFName {
		x.KeyByteOrder = binaryutil.NativeEndian
	}
	return x
}

// perMessage is how many elements one message holds: all of them are in one attribute, of 64 KiB at the most, and one
// takes 28 bytes, or 24 with a device's name.
const perMessage = 2048
