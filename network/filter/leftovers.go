package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// The chains of flannel, in the same tables as ours; and its tables of nf_tables, by subnet.Family.
const (
	flannelForwardChain    = "FLANNEL-FWD"
	flannelMasqueradeChain = "FLANNEL-POSTRTG"
)

func flannelTables() [2]string { return [2]string{"flannel-ipv4", "flannel-ipv6"} }

// chain is a chain of iptables that is to be gone, in one of its tables.
type chain struct{ table, name string }

// leftovers are the chains that are of another time: ours, and once flannel's too.
func leftovers(ours, flannels bool) (all []chain) {
	if ours {
		all = append(all, chain{"filter", ForwardChain}, chain{"nat", MasqueradeChain})
	}
	if flannels {
		all = append(all, chain{"filter", flannelForwardChain}, chain{"nat", flannelMasqueradeChain})
	}
	return all
}

// clear removes what is of another time, now that the rules are in: those of the mode that is not in use, those of the variant
// of iptables that is not in use, and flannel's. It says what it removed, and what it could not and why.
func (k *Keeper) clear(ctx context.Context, seen *blocking.Ruleset) (changed, left []string) {
	note := func(what string, done bool, err error) {
		switch {
		case err != nil:
			left = append(left, fmt.Sprintf("%s is left of another time, and does harm only by being in the way: %v", what, err))
		case done:
			changed = append(changed, "removed "+what+" of another time")
		}
	}
	if k.status.Mode == IPTables && k.table != nil {
		there, _, err := k.table.Check(nft.Content{})
		if err == nil && there {
			err = k.table.Remove()
		}
		note("table inet "+Table, there, err)
	}
	for _, f := range subnet.Families() {
		t := k.rules.tools[f]
		byNFT := k.status.Mode == IPTables && t != nil && t.nft
		byLegacy := k.status.Mode == IPTables && t != nil && !t.nft
		for _, c := range leftovers(!byNFT, !k.flannel) {
			if hasChain(seen.Chains, f, c) {
				done, err := k.table.Clear(ipFamily(f), c.table, c.name)
				note(fmt.Sprintf("%s, table %s: chain %s", f, c.table, c.name), done, err)
			}
		}
		for _, c := range leftovers(!byLegacy, !k.flannel) {
			if slices.ContainsFunc(seen.Legacy[f], func(t xtables.Table) bool { return t.Name == c.table && hasLegacyChain(t, c.name) }) {
				note(fmt.Sprintf("%s, legacy table %s: chain %s", f, c.table, c.name), true, clearLegacy(ctx, f, c))
			}
		}
		if name := flannelTables()[f]; !k.flannel && k.table != nil && slices.ContainsFunc(seen.Chains, func(c nft.ChainInfo) bool {
			return c.Family == ipFamily(f) && c.Table == name
		}) {
			note("table "+[...]string{"ip", "ip6"}[f]+" "+name, true, k.table.RemoveTable(ipFamily(f), name))
		}
	}
	// A flannel that still runs would put its rules back, and so would we remove them, for ever.
	k.flannel = k.flannel || len(left) == 0
	return changed, left
}

func ipFamily(f subnet.Family) nftables.TableFamily {
	return [...]nftables.TableFamily{subnet.IPv4: nftables.TableFamilyIPv4, subnet.IPv6: nftables.TableFamilyIPv6}[f]
}

func hasChain(chains []nft.ChainInfo, f subnet.Family, c chain) bool {
	return slices.ContainsFunc(chains, func(x nft.ChainInfo) bool {
		return x.Family == ipFamily(f) && x.Table == c.table && x.Name == c.name
	})
}

func hasLegacyChain(t xtables.Table, name string) bool {
	return slices.ContainsFunc(t.Chains, func(c xtables.Chain) bool { return c.Name == name })
}

// clearLegacy removes a chain of the legacy iptables, with all rules that call it. That takes its program.
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

// findLegacy looks for the program of the legacy iptables, by the name that tells it from the other, or by the plain one.
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
			errs = append(errs, fmt.Errorf("%s is not the legacy one", t.path))
		}
	}
	return nil, fmt.Errorf("it takes the program %s-legacy, of the package iptables, to remove it: %w", name, errors.Join(errs...))
}

// removal returns the input for iptables-restore --noflush that removes a chain with all rules that call it, from what
// iptables -S lists of the table; nothing if it is not there.
func removal(c chain, listed string) string {
	var lines []string
	there := false
	for line := range strings.Lines(listed) {
		line = strings.TrimSpace(line)
		rule, isRule := strings.CutPrefix(line, "-A ")
		switch {
		case line == "-N "+c.name:
			there = true
		case isRule && target(rule) == c.name:
			lines = append(lines, "-D "+rule)
		}
	}
	if !there {
		return ""
	}
	lines = append(lines, ":"+c.name+" - [0:0]", "-X "+c.name) // only an empty chain can be deleted
	return "*" + c.table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}
