package filter

import (
	"context"
	"errors"
	"fmt"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Ours names selvage's tables and chains, of any mode: what [Keeper.Remove] would remove.
func (k *Keeper) Ours() (names []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open()
	seen, err := k.survey()
	if err != nil {
		return nil, err
	}
	if k.table != nil {
		exists, _, err := k.table.Check(nft.Content{})
		if err != nil {
			return nil, err
		}
		if exists {
			names = append(names, "table inet "+Table)
		}
	}
	for _, f := range subnet.Families() {
		for _, c := range leftovers(true, false) {
			if hasChain(seen.Chains, f, c) {
				names = append(names, fmt.Sprintf("%s, table %s: chain %s", f, c.table, c.name))
			}
			if hasLegacyChain(seen.Legacy[f], c) {
				names = append(names, fmt.Sprintf("%s, legacy table %s: chain %s", f, c.table, c.name))
			}
		}
	}
	return names, nil
}

// Remove removes selvage's rules, of any mode, and returns what it removed. The error names what it could not remove.
func (k *Keeper) Remove(ctx context.Context) (removed []string, err error) {
	k.mu.Lock()
	k.flannelCleared = true // flannel's rules are not ours
	k.mu.Unlock()
	nftables := false // in mode iptables, the table is removed as a leftover
	removed, err = k.Ensure(ctx, Policy{NFTables: &nftables})
	for _, leftover := range k.Status().Leftover {
		err = errors.Join(err, errors.New(leftover))
	}
	return removed, err
}
