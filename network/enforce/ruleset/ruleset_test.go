package ruleset

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// web is a compiler for a node with two pods of one kind and a policy that selects them.
func web(t *testing.T) *policy.Compiler {
	t.Helper()
	c := policy.NewCompiler("n1")
	c.SetNamespace(policy.Namespace{Name: "red"})
	for i, name := range []string{"web-0", "web-1"} {
		c.SetPod(policy.Pod{UID: name, Namespace: "red", Name: name, Node: "n1", Addresses: [2]netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)}),
		}})
	}
	p, err := policy.DecodePolicy([]byte(`{"metadata": {"namespace": "red", "name": "web"}, "spec": {
		"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
			{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 80, "endPort": 81}]},
			{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	c.SetPolicy(p)
	return c
}

// length is how many elements a set has.
func length(s nft.Set) int {
	if s.List != nil {
		return len(s.List.Elements())
	}
	return len(s.Elements)
}

// TestUnchanged: what a change does not concern is the same list in memory.
func TestUnchanged(t *testing.T) {
	c, r := web(t), New(Options{})
	if !r.Empty() {
		t.Error("an empty ruleset is not empty")
	}
	r.Apply(c.Changes())
	before, elements := r.Content(), map[string]int{}
	for _, s := range before.Sets {
		elements[s.Name] = length(s)
	}
	c.SetPod(policy.Pod{UID: "web-2", Namespace: "red", Name: "web-2", Node: "n2",
		Addresses: [2]netip.Addr{subnet.IPv4: netip.MustParseAddr("10.0.1.1")}})
	r.Apply(c.Changes())
	after := r.Content()
	if r.Empty() || len(before.Sets) != len(after.Sets) || len(before.Chains) != len(after.Chains) {
		t.Fatalf("%d sets and %d chains became %d and %d", len(before.Sets), len(before.Chains), len(after.Sets), len(after.Chains))
	}
	var changed []string
	for i, s := range before.Sets {
		if s.List != after.Sets[i].List || len(s.Elements) > 0 && &s.Elements[0] != &after.Sets[i].Elements[0] {
			t.Errorf("%s has another list", s.Comment)
		}
		if length(after.Sets[i]) != elements[s.Name] {
			changed = append(changed, s.Comment)
		}
	}
	for i, ch := range before.Chains {
		if ch.Hook == nil && &ch.Rules[0] != &after.Chains[i].Rules[0] {
			changed = append(changed, ch.Name)
		}
	}
	if want := []string{"pods() in red"}; !slices.Equal(changed, want) {
		t.Errorf("changed: %q, want %q", changed, want)
	}
}

// TestEmptied: without the last policy there is nothing left.
func TestEmptied(t *testing.T) {
	c, r := web(t), New(Options{})
	r.Apply(c.Changes())
	c.DeletePolicy("red", "web")
	r.Apply(c.Changes())
	if _, elements, _ := r.Size(); !r.Empty() || elements != 0 {
		t.Errorf("left: %+v", r.Content())
	}
}

// TestPrefix: what is logged says why.
func TestPrefix(t *testing.T) {
	for _, d := range []Denial{
		{Direction: policy.Ingress, Reason: Isolated}, {Direction: policy.Egress, Reason: Invalid},
		{Direction: policy.Egress, Reason: Denied, Policy: "no-metadata.example", Rule: 12},
	} {
		if got, ok := ParsePrefix(d.Prefix()); got != d || !ok {
			t.Errorf("%+v: %q is %+v, %t", d, d.Prefix(), got, ok)
		}
	}
	long := Denial{Reason: Denied, Policy: strings.Repeat("a", 253), Rule: 1}
	if got, ok := ParsePrefix(long.Prefix()); len(long.Prefix()) > maxPrefix || !ok || !strings.HasPrefix(long.Policy, got.Policy) {
		t.Errorf("a long name: %q is %+v, %t", long.Prefix(), got, ok)
	}
	for _, prefix := range []string{"", "selvage", "selvage sideways isolated", "other ingress isolated"} {
		if d, ok := ParsePrefix(prefix); ok {
			t.Errorf("%q is %+v", prefix, d)
		}
	}
}
