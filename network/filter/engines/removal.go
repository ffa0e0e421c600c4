package engines

import (
	"maps"
	"slices"
	"strings"
)

// Commands returns the shell commands that remove an engine's rules for good. They must not be run while the engine
// runs: it would set them again, and the pods would be open in between.
//
// Of iptables, all rules that name a chain of the engine are left out, and with them the engine's chains.
func (e Engine) Commands() (list []string) {
	var patterns []string
	for _, prefix := range slices.Sorted(maps.Keys(chainPrefixes())) {
		if chainPrefixes()[prefix] == e.Name {
			patterns = append(patterns, "-e "+prefix)
		}
	}
	done := map[string]bool{}
	for _, p := range e.Places {
		command := "nft delete table " + p.Family + " " + p.Table
		if p.Chains > 0 {
			variant := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[p.Family]
			if variant == "" { // iptables has no such tables: another process made the chains with nft
				continue
			}
			kind := "-nft"
			if p.Legacy {
				kind = "-legacy"
			}
			variant += kind
			command = variant + "-save | grep -v " + strings.Join(patterns, " ") + " | " + variant + "-restore"
		}
		if !done[command] { // one for all tables of iptables
			done[command] = true
			list = append(list, command)
		}
	}
	return list
}
