package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Ours names what of the packet filter's rules is selvage's, of whatever mode: what [Keeper.Remove] would remove.
func (k *Keeper) Ours() (names []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open()
	seen, err := k.survey()
	if err != nil {
		return nil, err
	}
	if k.table != nil {
		there, _, err := k.table.Check(nft.Content{})
		if err != nil {
			return nil, err
		}
		if there {
			names = append(names, "table inet "+Table)
		}
	}
	for _, f := range subnet.Families() {
		for _, c := range leftovers(true, false) {
			if hasChain(seen.Chains, f, c) {
				names = append(names, fmt.Sprintf("%s, table %s: chain %s", f, c.table, c.name))
			}
			if slices.ContainsFunc(seen.Legacy[f], func(t xtables.Table) bool { return t.Name == c.table && hasLegacyChain(t, c.name) }) {
				names = append(names, fmt.Sprintf("%s, legacy table %s: chain %s", f, c.table, c.name))
			}
		}
	}
	return names, nil
}

// Remove takes all that is ours out of the packet filter, of whatever mode, and says what that was. The error names what could
// not be removed.
func (k *Keeper) Remove(ctx context.Context) (removed []string, err error) {
	k.mu.Lock()
	k.flannel = true // what that left is not ours
	k.mu.Unlock()
	byIPTables := false // so that the table goes as what is left of another mode does
	removed, err = k.Ensure(ctx, Policy{NFTables: &byIPTables})
	for _, left := range k.Status().Left {
		err = errors.Join(err, errors.New(left))
	}
	return removed, err
}
