package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Flannel's chains, in the same tables as ours; and its tables in nf_tables, by subnet.Family.
const (
	flannelForwardChain    = "FLANNEL-FWD"
	flannelMasqueradeChain = "FLANNEL-POSTRTG"
)

func flannelTables() [2]string { return [2]string{"flannel-ipv4", "flannel-ipv6"} }

// chain is a chain in a table of iptables.
type chain struct{ table, name string }

// chainsOf returns selvage's chains in the scopes with these tags.
func chainsOf(tags ...string) (all []chain) {
	for _, tag := range tags {
		all = append(all, chain{"filter", network.Tagged(ForwardChain, tag)},
			chain{"nat", network.Tagged(MasqueradeChain, tag)})
	}
	return all
}

// leftovers returns the chains to remove: those of the current scope, flannel's, or both; and those of earlier runs.
func leftovers(ours, flannels bool, tag string, former []string) (all []chain) {
	if ours {
		all = chainsOf(tag)
	}
	all = append(all, chainsOf(former...)...)
	if flannels {
		all = append(all, chain{"filter", flannelForwardChain}, chain{"nat", flannelMasqueradeChain})
	}
	return all
}

// clear removes leftover rules after the current ones are set: those of the mode and of the iptables variant that are
// not in use, and flannel's. It returns what it removed, and what it could not remove and why.
func (k *Keeper) clear(ctx context.Context, p Policy, seen *blocking.Ruleset) (removed, leftover []string) {
	note := func(what string, done bool, err error) {
		switch {
		case err != nil:
			leftover = append(leftover, fmt.Sprintf("leftover rules, which only cost time: %s: %v", what, err))
		case done:
			removed = append(removed, "removed leftover rules: "+what)
		}
	}
	former := p.Former
	if k.formerCleared { // once only: another daemon may have these names by now
		former = nil
	}
	tables := slices.Clone(former)
	if k.status.Mode == IPTables {
		tables = append(tables, p.Tag)
	}
	for _, tag := range tables {
		if k.table == nil {
			break
		}
		t := k.table.Table(tableName(tag))
		exists, _, err := t.Check(nft.Content{})
		if err == nil && exists {
			err = t.Remove()
		}
		note("table inet "+tableName(tag), exists, err)
	}
	for _, f := range subnet.Families() {
		t := k.rules.tools[f]
		byNFT := k.status.Mode == IPTables && t != nil && t.nft
		byLegacy := k.status.Mode == IPTables && t != nil && !t.nft
		for _, c := range leftovers(!byNFT, !k.flannelCleared, p.Tag, former) {
			if hasChain(seen.Chains, f, c) {
				done, err := k.table.Clear(ipFamily(f), c.table, c.name)
				note(fmt.Sprintf("%s, table %s: chain %s", f, c.table, c.name), done, err)
			}
		}
		for _, c := range leftovers(!byLegacy, !k.flannelCleared, p.Tag, former) {
			if hasLegacyChain(seen.Legacy[f], c) {
				note(fmt.Sprintf("%s, legacy table %s: chain %s", f, c.table, c.name), true, clearLegacy(ctx, f, c))
			}
		}
		name := flannelTables()[f]
		if !k.flannelCleared && k.table != nil && slices.ContainsFunc(seen.Chains, func(c nft.ChainInfo) bool {
			return c.Family == ipFamily(f) && c.Table == name
		}) {
			note("table "+[...]string{"ip", "ip6"}[f]+" "+name, true, k.table.RemoveTable(ipFamily(f), name))
		}
	}
	// Once only: a flannel that still runs would restore its rules, and we would remove them, without end.
	k.flannelCleared = k.flannelCleared || len(leftover) == 0
	k.formerCleared = k.formerCleared || len(leftover) == 0
	return removed, leftover
}

func ipFamily(f subnet.Family) nftables.TableFamily {
	return [...]nftables.TableFamily{subnet.IPv4: nftables.TableFamilyIPv4, subnet.IPv6: nftables.TableFamilyIPv6}[f]
}

func hasChain(chains []nft.ChainInfo, f subnet.Family, c chain) bool {
	return slices.ContainsFunc(chains, func(x nft.ChainInfo) bool {
		return x.Family == ipFamily(f) && x.Table == c.table && x.Name == c.name
	})
}

func hasLegacyChain(tables []xtables.Table, c chain) bool {
	return slices.ContainsFunc(tables, func(t xtables.Table) bool {
		return t.Name == c.table && slices.ContainsFunc(t.Chains,
			func(x xtables.Chain) bool { return x.Name == c.name })
	})
}

// clearLegacy removes a chain of the legacy iptables and all rules that call it. It needs the program for that.
func clearLegacy(ctx context.Context, f subnet.Family, c chain) error {
	t, err := findLegacy(ctx, f)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		out, err := run(ctx, "", t.path, "--wait", strconv.Itoa(t.lockWaitSecs), "-t", c.table, "-S")
		if err != nil {
			return err
		}
		input := removal(c, out)
		if input == "" {
			return nil
		}
		if err = t.restore(ctx, input); err == nil {
			return nil
		}
		if n == attempts {
			return err
		}
	}
}

// findLegacy returns the legacy iptables, found by its own name or by the plain one.
func findLegacy(ctx context.Context, f subnet.Family) (*tool, error) {
	name := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
	var errs []error
	for _, program := range []string{name + "-legacy", name} {
		t, err := findProgram(ctx, program)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !t.nft:
			return t, nil
		default:
			errs = append(errs, fmt.Errorf("%s is not the legacy variant", t.path))
		}
	}
	return nil, fmt.Errorf("install the program %s-legacy (package iptables) to remove them: %w",
		name, errors.Join(errs...))
}

// removal returns the input for iptables-restore --noflush that removes a chain and all rules that call it. listed is
// what iptables -S prints for the table. If the chain does not exist, removal returns "".
func removal(c chain, listed string) string {
	var lines []string
	exists := false
	for line := range strings.Lines(listed) {
		line = strings.TrimSpace(line)
		rule, isRule := strings.CutPrefix(line, "-A ")
		switch {
		case line == "-N "+c.name:
			exists = true
		case isRule && target(rule) == c.name:
			lines = append(lines, "-D "+rule)
		}
	}
	if !exists {
		return ""
	}
	lines = append(lines, ":"+c.name+" - [0:0]", "-X "+c.name) // only an empty chain can be deleted
	return "*" + c.table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}
