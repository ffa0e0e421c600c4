package filter

import (
	"context"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// Watch calls changed whenever another process may have changed our rules, until ctx ends. The kernel reports changes
// to nf_tables, including those by the iptables on nf_tables. It does not report changes by the legacy iptables, so
// [Keeper.Ensure] must be called from time to time as well. Watch skips the keeper's own changes with nftables, but not
// those with iptables.
//
// Watch calls ready once, when it misses no event from then on, and anyChange after any external change to nf_tables.
func (k *Keeper) Watch(ctx context.Context, ready, changed, anyChange func()) error {
	lost := func() {
		anyChange()
		changed() // a lost event may have been about our rules
	}
	return nft.Watch(ctx, ready, lost, func(events []nft.Event) {
		mode, _ := k.mode.Load().(Mode)
		tag, _ := k.watched.Load().(string)
		events = slices.DeleteFunc(events, func(e nft.Event) bool { return e.Port == k.port.Load() })
		if len(events) > 0 {
			anyChange()
		}
		if slices.ContainsFunc(events, func(e nft.Event) bool { return concerns(e, mode, tag) }) {
			changed()
		}
	})
}

// concerns reports whether an event is about a table or chain that our rules in mode m depend on; without a mode, in
// either.
func concerns(e nft.Event, m Mode, tag string) bool {
	if e.Family == nftables.TableFamilyINet {
		return e.Table == tableName(tag) && m != IPTables
	}
	ofIPTables := (e.Family == nftables.TableFamilyIPv4 || e.Family == nftables.TableFamilyIPv6) &&
		(e.Table == "filter" || e.Table == "nat")
	if m == NFTables || !ofIPTables {
		return false
	}
	switch e.Type {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return true
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return e.Chain == "FORWARD" || e.Chain == "POSTROUTING" ||
			slices.ContainsFunc(chainsOf(tag), func(c chain) bool { return c.name == e.Chain })
	}
	return false
}
