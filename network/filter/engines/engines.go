// Package engines finds the rules of other programs that enforce network policies on this node.
//
// Rules of an engine that was removed stay in the kernel and keep enforcing the policies of that moment; those of one
// that runs take effect beside ours, since a packet has to pass every table. The package recognizes an engine by the
// names of its tables and chains, which are the interface that its own clean-up relies on, and it does not judge what
// the rules do. An engine whose rules are eBPF programs only, or Open vSwitch's, is not seen.
package engines

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Name is the name of a program that enforces network policies. Programs compare names.
type Name string

// The engines that are known.
const (
	KubeRouter          Name = "kube-router" // k3s and RKE2 have it built in
	Calico              Name = "Calico"      // Canal too
	Cilium              Name = "Cilium"
	WeaveNet            Name = "Weave Net"
	AzureNPM            Name = "Azure Network Policy Manager"
	KubeNetworkPolicies Name = "kube-network-policies"
)

// Engine is another program's enforcement, as its tables and chains show it.
type Engine struct {
	Name   Name
	Places []Place // sorted, without duplicates
}

// Place is where rules of an engine are.
type Place struct {
	Family string // of an nf_tables table, such as "inet"; of the legacy iptables "ip" or "ip6"
	Table  string
	Chains int  // how many chains of the table are the engine's; 0: all, the table is its own
	Legacy bool // the legacy iptables, not nf_tables
}

// chainPrefixes are the beginnings of the names of chains. Sources: kube-router pkg/controllers/netpol, projectcalico
// felix/rules, cilium pkg/datapath/iptables, weave npc, azure-container-networking npm/iptm.
func chainPrefixes() map[string]Name {
	return map[string]Name{
		"KUBE-ROUTER-": KubeRouter, "KUBE-POD-FW-": KubeRouter, "KUBE-NWPLCY-": KubeRouter,
		"cali-": Calico, "CILIUM_": Cilium, "WEAVE-NPC": WeaveNet, "AZURE-NPM": AzureNPM,
	}
}

// tables are the names of tables that are an engine's own.
func tables() map[string]Name {
	return map[string]Name{
		"kube-network-policies": KubeNetworkPolicies, "kindnet-network-policies": KubeNetworkPolicies, "calico": Calico,
	}
}

// Read returns the engines that have rules in the network namespace of the calling thread. Without nf_tables, it reads
// only the legacy iptables.
func Read() (found []Engine, err error) {
	var all []nft.TableInfo
	var chains []nft.ChainInfo
	c, err := nft.Dial()
	switch {
	case err == nil:
		defer c.Close()
		if all, err = c.Tables(); err != nil {
			return nil, err
		}
		if chains, err = c.Chains(); err != nil {
			return nil, err
		}
	case !errors.Is(err, nft.ErrUnsupported):
		return nil, err
	}
	legacy := map[subnet.Family][]xtables.Table{}
	for _, f := range subnet.Families() {
		if legacy[f], err = xtables.Read(f); err != nil {
			return nil, err
		}
	}
	return Find(all, chains, legacy), nil
}

// Find returns the engines that the tables and chains belong to, sorted by name.
func Find(all []nft.TableInfo, chains []nft.ChainInfo, legacy map[subnet.Family][]xtables.Table) []Engine {
	found := map[Name]map[Place]int{}
	add := func(name Name, p Place, chains int) {
		if found[name] == nil {
			found[name] = map[Place]int{}
		}
		found[name][p] += chains
	}
	for _, t := range all {
		if name, ok := tables()[t.Name]; ok {
			add(name, Place{Family: nft.FamilyName(t.Family), Table: t.Name}, 0)
		}
	}
	for _, c := range chains {
		if name, ok := chainOf(c.Name); ok && tables()[c.Table] == "" {
			add(name, Place{Family: nft.FamilyName(c.Family), Table: c.Table}, 1)
		}
	}
	for f, tables := range legacy {
		family := nftables.TableFamilyIPv4
		if f == subnet.IPv6 {
			family = nftables.TableFamilyIPv6
		}
		for _, t := range tables {
			for _, c := range t.Chains {
				if name, ok := chainOf(c.Name); ok {
					add(name, Place{Family: nft.FamilyName(family), Table: t.Name, Legacy: true}, 1)
				}
			}
		}
	}
	var list []Engine
	for _, name := range slices.Sorted(maps.Keys(found)) {
		e := Engine{Name: name}
		for p, chains := range found[name] {
			p.Chains = chains
			e.Places = append(e.Places, p)
		}
		slices.SortFunc(e.Places, comparePlaces)
		list = append(list, e)
	}
	return list
}

func chainOf(chain string) (Name, bool) {
	for prefix, name := range chainPrefixes() {
		if strings.HasPrefix(chain, prefix) {
			return name, true
		}
	}
	return "", false
}

func comparePlaces(a, b Place) int {
	legacy := func(p Place) int {
		if p.Legacy {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(legacy(a), legacy(b)), cmp.Compare(a.Family, b.Family), cmp.Compare(a.Table, b.Table))
}

// String describes a place, such as "table inet calico" or "3 chains in table ip filter (legacy iptables)".
func (p Place) String() string {
	text := "table " + p.Family + " " + p.Table
	switch {
	case p.Chains == 1:
		text = "1 chain in " + text
	case p.Chains > 1:
		text = strconv.Itoa(p.Chains) + " chains in " + text
	}
	if p.Legacy {
		text += " (legacy iptables)"
	}
	return text
}
