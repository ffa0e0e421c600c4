package policy

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// compiled returns a compiler with all objects of a world.
func (w *world) compiled(node string) *Compiler {
	c := NewCompiler(node)
	for _, p := range w.ClusterWide {
		c.SetClusterPolicy(*p)
	}
	for _, p := range w.Policies {
		c.SetPolicy(*p)
	}
	for _, p := range w.Pods {
		c.SetPod(*p)
	}
	for _, n := range w.Namespaces {
		c.SetNamespace(n)
	}
	return c
}

// TestCompiled: the table does with the packets of each scenario what the evaluator says.
func TestCompiled(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := worldOf(t, s)
			c := w.compiled(thisNode)
			table := NewTable()
			apply(t, table, c.Changes())
			equalTables(t, "the whole table", c.Table(), table)
			consistent(t, table)
			x := interpreter{t, table}
			for _, packet := range s.packets {
				p := w.packet(packet[0])
				v := Judge(w, thisNode, p)
				for _, d := range Directions() {
					if got := x.allowed(p, d); got != v[d].Allowed {
						t.Errorf("%s, %s: the table says %v, the evaluator %+v", packet[0], d, got, v[d])
					}
				}
				if indexed := Judge(c, thisNode, p); !reflect.DeepEqual(indexed, v) {
					t.Errorf("%s: from the compiler's index %+v, want %+v", packet[0], indexed, v)
				}
			}
		})
	}
}

// changed returns the names of chains that changed, and the number of elements that did.
func changed(c Changes) (chains []string, elements int) {
	for name := range c.Chains {
		chains = append(chains, name)
	}
	for _, s := range c.Sets {
		elements += len(s.Add) + len(s.Remove)
		if s.Created || s.Removed {
			chains = append(chains, "set "+s.Name)
		}
	}
	return chains, elements
}

func (w *world) change(what string, c *Compiler, elements int) {
	w.t.Helper()
	if chains, n := changed(c.Changes()); len(chains) > 0 || n != elements {
		w.t.Errorf("%s changes %v and %d elements, want %d elements only", what, chains, n, elements)
	}
}

// TestChurn: what pods and namespaces change is elements, and only of the sets in which they are.
func TestChurn(t *testing.T) {
	w := standard(t)
	w.policy("red/a", `{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Ingress"],"ingress":[
		{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}}},{"podSelector":{"matchLabels":{"app":"db"}}}],"ports":[{"port":"http"},{"port":443}]},
		{"from":[{"podSelector":{"matchLabels":{"app":"far"}}}]}]}`)
	w.policy("red/b", `{"podSelector":{"matchLabels":{"new":"yes"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}}}]}]}`)
	w.policy("blue/unused", `{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Egress"],"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"env":"prod"}}}]}]}`)
	c := w.compiled(thisNode)
	c.Changes()
	sets, chains := len(c.sets)-len(fixedSets()), len(c.chains)
	// Addresses of blue, db and far, and the local pods' port http, of both families. A chain for each policy that
	// selects a local pod, one for web and one for web2.
	if sets != 8 || chains != 4 || !c.NeedsPeers() {
		t.Errorf("%d sets and %d chains, want 8 and 4", sets, chains)
	}

	// In the sets: "itself" and "ingress" of both families, and its port.
	another := *w.Pods["red/web"]
	another.UID, another.Addresses = "another", w.pod("red/x", "n1", "", "10.0.1.40", "fd00:1::40").Addresses
	c.SetPod(another)
	w.change("a second local pod", c, 6)
	peer := *w.pod("red/y", "n2", "app=far", "10.0.2.41", "fd00:2::41")
	c.SetPod(peer)
	w.change("a peer", c, 2)
	far := *w.pod("red/z", "n2", "app=none", "10.0.2.42")
	c.SetPod(far)
	w.change("a pod that no policy names", c, 0)
	c.SetNamespace(Namespace{Name: "blue", Labels: labels("team=green")})
	w.change("a namespace", c, 4)
	c.SetNamespace(w.Namespaces["blue"])
	w.change("a namespace", c, 4)
	peer.Ports = MakePorts([]NamedPort{{"http", TCP, 1}})
	c.SetPod(peer)
	w.change("a peer's port", c, 0)
	another.Ports = MakePorts([]NamedPort{{"http", TCP, 1}})
	c.SetPod(another)
	w.change("a local pod's port", c, 4)
	c.DeletePod("another")
	w.change("the end of a local pod", c, 6)
	c.SetNamespace(Namespace{Name: "blue", Labels: labels("team=green")})
	c.SetNamespace(w.Namespaces["blue"])
	w.change("a change and its opposite", c, 0)

	// A policy's rules are in one chain, whatever pods it selects.
	p := *w.policy("red/a", `{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Ingress"],"ingress":[{}]}`)
	c.SetPolicy(p)
	ch := c.Changes()
	if len(ch.Chains) != 1 || ch.Chains["ingress/red/a"] == nil || len(ch.Chains["ingress/red/a"].Rules) != 1 {
		t.Errorf("a policy changes %+v", ch.Chains)
	}
	for _, uid := range []string{"red/web", "red/web2"} {
		c.DeletePod(uid)
	}
	c.Changes()
	if len(c.chains) != 0 || len(c.sets) != len(fixedSets()) || c.NeedsPeers() {
		t.Errorf("chains %v and sets %v without a local pod that a policy selects", c.chains, c.sets)
	}
}

// TestBeforeAddress: the chain of a local pod is there before its address is known, and it is no peer until then.
func TestBeforeAddress(t *testing.T) {
	w := standard(t)
	w.policy("red/a", `{"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{}}]}]}`)
	p := *w.Pods["red/db"]
	delete(w.Pods, "red/db")
	c := w.compiled(thisNode)
	c.Changes()
	address := p.Addresses
	p.Addresses = [2]netip.Addr{}
	c.SetPod(p)
	if ch := c.Changes(); len(ch.Chains) != 2 || len(ch.Sets["ingress4"].Add) != 0 {
		t.Errorf("without an address: %+v", ch)
	}
	p.Addresses = address
	c.SetPod(p)
	// In "itself", in "ingress", and as a peer, of both families.
	w.change("the address", c, 6)
}

// TestReusedAddress: the late end of a pod does not take the address from the next one.
func TestReusedAddress(t *testing.T) {
	w := standard(t)
	w.policy("red/a", `{"podSelector":{},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"far"}}}]}]}`)
	c := w.compiled(thisNode)
	c.Changes()
	next := *w.Pods["red/far"]
	next.UID, next.Since = "next", 5
	c.SetPod(next)
	w.change("the next pod with an address", c, 0)
	c.DeletePod("red/far")
	w.change("the end of the pod that had it", c, 0)
	next.Ended = true
	c.SetPod(next)
	w.change("the end of the next pod", c, 2)
}

// TestRanges: blocks without their exceptions, as ranges that do not overlap or touch.
func TestRanges(t *testing.T) {
	for _, c := range []struct{ blocks, want string }{
		{"10.0.0.0/8", "10.0.0.0-10.255.255.255"},
		{"0.0.0.0/0", "0.0.0.0-255.255.255.255"},
		{"0.0.0.0/0 !0.0.0.0/1", "128.0.0.0-255.255.255.255"},
		{"0.0.0.0/0 !128.0.0.0/1", "0.0.0.0-127.255.255.255"},
		{"0.0.0.0/0 !255.255.255.255/32 !0.0.0.0/32", "0.0.0.1-255.255.255.254"},
		{"10.0.0.0/24 !10.0.0.0/24", ""},
		{"10.0.0.0/24 !10.0.0.0/8", ""},
		{"10.0.0.0/24 !10.1.0.0/16 !::/0", "10.0.0.0-10.0.0.255"},
		{"10.0.0.0/24 !10.0.0.8/30 !10.0.0.8/29 !10.0.0.9/32", "10.0.0.0-10.0.0.7 10.0.0.16-10.0.0.255"},
		{"10.0.0.0/24 !10.0.0.8/29, 10.0.0.10/32", "10.0.0.0-10.0.0.7 10.0.0.10-10.0.0.10 10.0.0.16-10.0.0.255"},
		{"10.0.1.0/24, 10.0.0.0/24", "10.0.0.0-10.0.1.255"},
		{"10.0.0.0/8, 10.0.0.0/24, 255.0.0.0/8, 255.255.255.255/32", "10.0.0.0-10.255.255.255 255.0.0.0-255.255.255.255"},
		{"::/0 !fd00::/8", "::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		var peers []Peer
		for block := range strings.SplitSeq(c.blocks, ", ") {
			f := strings.Fields(block)
			p := Peer{Block: netip.MustParsePrefix(f[0])}
			for _, e := range f[1:] {
				p.Except = append(p.Except, netip.MustParsePrefix(e[1:]))
			}
			peers = append(peers, p)
		}
		var got []string
		for _, e := range rangesOf(peers, subnet.FamilyOf(peers[0].Block.Addr())) {
			got = append(got, e.Addr.String()+"-"+e.Last.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", c.blocks, text, c.want)
		}
	}
}

// TestMergePorts: ranges of ports that do not overlap or touch.
func TestMergePorts(t *testing.T) {
	for _, c := range []struct{ list, want []PortRange }{
		{[]PortRange{{90, 95}, {80, 80}, {81, 81}, {92, 99}}, []PortRange{{80, 81}, {90, 99}}},
		{[]PortRange{{0, 65535}, {80, 80}}, nil},
		{[]PortRange{{65535, 65535}, {1, 65534}}, []PortRange{{1, 65535}}},
	} {
		if got := mergePorts(slices.Clone(c.list)); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.list, got, c.want)
		}
	}
}

// TestNames: names fit into nf_tables, are valid there, and differ.
func TestNames(t *testing.T) {
	long := strings.Repeat("x", 253)
	seen := map[string]bool{}
	for _, p := range []Policy{
		{Namespace: "red", Name: "a"}, {Namespace: "red", Name: long}, {Namespace: "rex", Name: long}, {Namespace: "a/b", Name: "c"},
		{Namespace: "a", Name: "b/c"}, {Namespace: "a", Name: "b c"}, {Namespace: "a", Name: `b";drop`}, {Namespace: "red", Name: "_a"},
	} {
		for _, d := range Directions() {
			name := policyChain(d, &p)
			if seen[name] || len(name) > 255 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_./") != "" {
				t.Errorf("%s for %s", name, p.Key())
			}
			seen[name] = true
		}
	}
}
