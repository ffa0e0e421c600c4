package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Ours names the tables and chains, of any mode, of the network whose scope has the tag: what [Keeper.Remove] would
// remove.
func (k *Keeper) Ours(tag string) (names []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.use(tag)
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
			names = append(names, "table inet "+tableName(tag))
		}
	}
	for _, f := range subnet.Families() {
		for _, c := range chainsOf(tag) {
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

// Tags returns the tags of all scopes that have tables with the given names, which are those of the default scope, or
// chains of iptables on this node; "" is the tag of the default scope.
func (k *Keeper) Tags(tables ...string) (tags []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open()
	seen, err := k.survey()
	if err != nil {
		return nil, err
	}
	note := func(name string, bases ...string) {
		for _, base := range bases {
			tag, ok := strings.CutPrefix(name, base)
			if tag, _ = strings.CutPrefix(tag, "-"); ok && network.Tagged(base, tag) == name && isTag(tag) &&
				!slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
	}
	for _, c := range seen.Chains {
		if c.Family == nftables.TableFamilyINet {
			note(c.Table, tables...)
		} else {
			note(c.Name, ForwardChain, MasqueradeChain)
		}
	}
	for _, f := range subnet.Families() {
		for _, t := range seen.Legacy[f] {
			for _, c := range t.Chains {
				note(c.Name, ForwardChain, MasqueradeChain)
			}
		}
	}
	slices.Sort(tags)
	return tags, nil
}

// isTag reports whether a text has the form of network.Scope.Tag.
func isTag(s string) bool { return s == "" || len(s) == 8 && strings.Trim(s, "0123456789abcdef") == "" }

// Remove removes selvage's rules, of any mode, of the network whose scope has the tag, and returns what it removed. The
// error names what it could not remove.
func (k *Keeper) Remove(ctx context.Context, tag string) (removed []string, err error) {
	k.mu.Lock()
	k.flannelCleared = true // flannel's rules are not ours
	k.mu.Unlock()
	nftables := false // in mode iptables, the table is removed as a leftover
	removed, err = k.Ensure(ctx, Policy{Tag: tag, NFTables: &nftables})
	for _, leftover := range k.Status().Leftover {
		err = errors.Join(err, errors.New(leftover))
	}
	return removed, err
}
