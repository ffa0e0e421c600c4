package filter

import (
	"context"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// Watch calls changed whenever the kernel tells that somebody may have changed our rules, until ctx ends. It hears of
// nf_tables, and so of the iptables that is built on it; changes by the legacy iptables are told to nobody, which is why
// [Keeper.Ensure] is called now and then anyway. What the keeper itself changes by nftables is passed over; what it has iptables
// change is told as well.
//
// ready is called once, when from then on nothing is missed; stirred, for whatever others change in nf_tables at all.
func (k *Keeper) Watch(ctx context.Context, ready, changed, stirred func()) error {
	lost := func() {
		stirred()
		changed() // one of those may have been about us
	}
	return nft.Watch(ctx, ready, lost, func(news []nft.Event) {
		mode, _ := k.mode.Load().(Mode)
		news = slices.DeleteFunc(news, func(n nft.Event) bool { return n.Port == k.port.Load() })
		if len(news) > 0 {
			stirred()
		}
		if slices.ContainsFunc(news, func(n nft.Event) bool { return concerns(n, mode) }) {
			changed()
		}
	})
}

// concerns reports whether news are about what our rules depend on, in a mode; in none, in either.
func concerns(n nft.Event, m Mode) bool {
	if n.Family == nftables.TableFamilyINet {
		return n.Table == Table && m != IPTables
	}
	// iptables has its tables in these two.
	if m == NFTables || n.Family != nftables.TableFamilyIPv4 && n.Family != nftables.TableFamilyIPv6 || n.Table != "filter" && n.Table != "nat" {
		return false
	}
	switch n.Type {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return true
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return slices.Contains([]string{"FORWARD", "POSTROUTING", ForwardChain, MasqueradeChain}, n.Chain)
	}
	return false
}
