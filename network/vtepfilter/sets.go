package vtepfilter

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// The names of sets; the first three are per family.
func peersSet(f nft.Family) string   { return "peers-" + f.Name }
func allowSet(f nft.Family) string   { return "allow-" + f.Name }
func overlaySet(f nft.Family) string { return "overlay-" + f.Name }

const devicesSet = "devices"

// peersOf returns a family's set of peers.
func peersOf(f nft.Family) nft.Set { return nft.Set{Name: peersSet(f), Key: f.Key, External: true} }

// content returns the desired content of the table, without the peers.
func (c Config) content() nft.Content { return nft.Content{Sets: c.sets(), Chains: c.chains()} }

// sets returns all sets of the table.
func (c Config) sets() (sets []nft.Set) {
	for _, f := range nft.Families() {
		sets = append(sets,
			peersOf(f),
			nft.Set{Name: allowSet(f), Key: f.Key, Interval: true, Elements: f.Intervals(c.Allow)},
			nft.Set{Name: overlaySet(f), Key: f.Key, Interval: true, Elements: f.Intervals(c.Networks)})
	}
	devices := nft.Set{Name: devicesSet, Key: nftables.TypeIFName}
	names := slices.Clone(c.Devices)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		key := make([]byte, unix.IFNAMSIZ)
		copy(key, name)
		devices.Elements = append(devices.Elements, nft.Element{Key: string(key)})
	}
	return append(sets, devices)
}

// add appends addresses to the elements of the sets of peers. It skips addresses that a peer cannot have.
func add(elements nft.SetElements, peers iter.Seq[netip.Addr]) {
	names := map[bool]string{}
	for _, f := range nft.Families() {
		names[f.Proto == unix.NFPROTO_IPV4] = peersSet(f)
	}
	count := map[bool]int{} // an element is large: allocate once
	for a := range peers {
		count[a.Is4()]++
	}
	for is4, n := range count {
		elements[names[is4]] = slices.Grow(elements[names[is4]], n)
	}
	for a := range peers {
		if checkPeer(a) == nil {
			name := names[a.Is4()]
			elements[name] = append(elements[name], nft.Element{Key: string(a.AsSlice())})
		}
	}
}

// present returns the peers in the sets, sorted.
func (f *Filter) present() (peers []netip.Addr, err error) {
	for _, x := range nft.Families() {
		list, err := f.table.Elements(peersSet(x))
		if err != nil {
			return nil, err
		}
		// Another process may have created a set of ranges, or of something other than addresses, with that name.
		if slices.ContainsFunc(list, func(e nft.Element) bool { return e.End }) {
			continue
		}
		peers = slices.Grow(peers, len(list))
		for _, e := range list {
			if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok && nft.FamilyOf(a) == x {
				peers = append(peers, a)
			}
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return slices.Compact(peers), nil
}
