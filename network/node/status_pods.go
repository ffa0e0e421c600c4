package node

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// podsStatus describes the node's own side; nil if no pod was started.
func (n *node) podsStatus() *status.Pods {
	o := &n.ownSide
	unrecorded := 0
	if n.config != nil && n.backend != nil {
		unrecorded = n.unrecorded()
	}
	if len(o.pods)+len(o.damaged)+unrecorded == 0 {
		return nil
	}
	s := &status.Pods{Count: len(o.pods) + len(o.damaged), Bridges: n.podGroups(), Damaged: len(o.damaged)}
	why := map[string]int{}
	for _, p := range o.pods {
		if !p.Managed {
			why[p.Why]++
		}
	}
	for _, text := range slices.Sorted(maps.Keys(why)) {
		s.Unmanaged = append(s.Unmanaged, status.UnmanagedPods{Count: why[text], Why: status.Text(text)})
	}
	if unrecorded > 0 {
		s.Unmanaged = append(s.Unmanaged, status.UnmanagedPods{Count: unrecorded, Why: "the CNI plugin that started " +
			"them stored no record: another plugin, or an earlier version; they are managed once they are restarted"})
	}
	return s
}

// podGroups describes each bridge of pods, and under an empty name the pods without a bridge.
func (n *node) podGroups() (all []status.PodBridge) {
	o := &n.ownSide
	index := map[string]int{}
	group := func(name string) *status.PodBridge {
		i, known := index[name]
		if !known {
			i = len(all)
			index[name] = i
			all = append(all, status.PodBridge{Name: name, InSync: true})
		}
		return &all[i]
	}
	masters := map[string]string{} // of ports
	for _, x := range o.state.Bridges {
		group(x.Key).MTU = x.Value.MTU
	}
	for _, x := range o.state.Ports {
		group(x.Value.Master).Pods++
		masters[x.Key] = x.Value.Master
	}
	of := func(link string) *status.PodBridge {
		if master, is := masters[link]; is {
			link = master
		}
		return group(link)
	}
	for _, x := range o.state.Addresses {
		if b := of(x.Key.Link); b.Name != "" && !x.Key.Prefix.Addr().IsLinkLocalUnicast() {
			b.Addresses = append(b.Addresses, x.Key.Prefix)
		}
	}
	differs := func(link, what string) {
		b := of(link)
		b.InSync = false
		if b.Differs = append(b.Differs, status.Text(what)); len(b.Differs) > manyPodProblems {
			b.Differs = b.Differs[:manyPodProblems]
		}
	}
	inSync(n.tables.Bridges, o.state.Bridges, func(k string, _ network.Bridge) { differs(k, "bridge "+k) })
	inSync(n.tables.Ports, o.state.Ports, func(k string, _ network.Port) { differs(k, "port "+k) })
	inSync(n.tables.Addresses, o.state.Addresses, func(k network.AddressKey, _ network.Address) {
		differs(k.Link, "address "+k.String())
	})
	inSync(n.tables.Routes, o.state.Routes, func(k network.RouteKey, v network.Route) {
		differs(v.Link, "route "+k.String())
	})
	inSync(n.tables.Sysctls, o.state.Sysctls, func(k string, _ network.Sysctl) {
		differs(strings.Split(k, "/")[3], "sysctl "+k) // net/ipv4/conf/cni0/forwarding
	})
	for i := range all {
		all[i].Since = o.since[all[i].Name]
	}
	slices.SortFunc(all, func(a, b status.PodBridge) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// inSync calls differs with each object that the kernel does not hold as desired.
func inSync[K, V comparable](t *network.Table[K, V], items []network.Item[K, V], differs func(K, V)) {
	for _, x := range items {
		if c := t.Get(x.Key); !c.Present || c.Have != x.Value {
			differs(x.Key, x.Value)
		}
	}
}
