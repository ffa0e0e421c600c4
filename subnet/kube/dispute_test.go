package kube

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// peersOf returns the names of the peers that a view accepts of leases, and why it rejects the others.
func peersOf(t *testing.T, leases map[string]subnet.Record) (names []string, rejected map[string]error) {
	t.Helper()
	config, err := subnet.ParseAllocatedConfig([]byte(`{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	view := subnet.NewView()
	view.SetRules(subnet.Rules{Config: config, PublicIPs: [2]netip.Addr{netip.MustParseAddr("192.0.2.200")}})
	view.Apply(subnet.Event{Type: subnet.Page, Revision: 1, Put: slices.Collect(maps.Values(leases))})
	view.Apply(subnet.Event{Type: subnet.Synced, Revision: 1})
	for p := range view.Peers {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names, maps.Collect(view.Quarantined)
}

// wantPeers waits until these are the peers, and the others are rejected for what they wrote, or because they overlap.
func wantPeers(t *testing.T, w *storetest.Watcher, rejected string, want ...string) {
	t.Helper()
	w.Until(func(s storetest.State) string {
		names, why := peersOf(t, s.Leases)
		reason := why[rejected]
		if !slices.Equal(names, want) || reason == nil ||
			!errors.Is(reason, subnet.ErrOverlap) && !strings.Contains(reason.Error(), PodCIDRsAnnotation) {
			return fmt.Sprintf("the peers %q; they are %q, and %v", want, names, why)
		}
		return ""
	})
}

// TestClaimedSubnetOfAnother: a Node whose annotation names another Node's subnet, or one around it or in it, is
// rejected by its name, be it older or younger, and the other Node stays a peer: in a list, when the annotation is
// written, and when the other Node comes later. Its spec is read once.
func TestClaimedSubnetOfAnother(t *testing.T) {
	for _, liar := range []string{"a", "z"} { // the names decide, since all are created within a second or two
		for _, named := range []string{"10.244.1.0/24", "10.244.0.0/22", "10.244.1.128/25"} {
			for _, flannel := range []bool{false, true} {
				t.Run(fmt.Sprint(liar, " ", named, " ", flannel), func(t *testing.T) {
					f := standIn(t, true)
					lie := func() { f.annotate(t, liar, map[string]any{PodCIDRsAnnotation: named}) }
					honest := func() {
						if flannel {
							f.addNode(t, "honest", "10.244.1.0/24")
							f.annotate(t, "honest", flannels("192.0.2.1"))
						} else {
							f.leased(t, "honest", "10.244.1.0/24")
						}
					}
					if liar == "a" {
						f.leased(t, liar, "10.244.2.0/24")
					}
					honest()
					if liar == "z" {
						f.leased(t, liar, "10.244.2.0/24")
					}
					w := storetest.Watch(t, f.open(t, "one"), nil)
					if got := w.Synced(1).Names(); len(got) != 2 {
						t.Fatalf("there is %q", got)
					}
					lie()
					wantPeers(t, w, liar, "honest")
					list := storetest.Watch(t, f.open(t, "one"), nil)
					list.Synced(1)
					wantPeers(t, list, liar, "honest")
					f.verbs()
					for _, other := range []string{"10.244.9.0/24", "10.244.1.0/24", "10.244.0.0/16", named} {
						f.annotate(t, liar, map[string]any{PodCIDRsAnnotation: other})
					}
					if err := f.admin.DeleteNode(t.Context(), "honest"); err != nil {
						t.Fatal(err)
					}
					w.Gone("honest")
					honest()
					wantPeers(t, w, liar, "honest")
					wantPeers(t, list, liar, "honest")
					// That of honest by its own daemon, or by both watches, and that of a liar that was rejected as younger.
					if got := f.verbs()["GET"]; got > 3 {
						t.Errorf("%d Nodes were read", got)
					}
					f.annotate(t, liar, map[string]any{PodCIDRsAnnotation: "10.244.2.0/24"})
					w.Until(func(s storetest.State) string {
						if got, why := peersOf(t, s.Leases); len(got) != 2 {
							return fmt.Sprintf("both; there is %q, %v", got, why)
						}
						return ""
					})
				})
			}
		}
	}
}

// TestManyDisputes: one wrong annotation costs one read, also if it names what ninety Nodes have, and many are read
// as a list.
func TestManyDisputes(t *testing.T) {
	for _, liars := range []int{1, manySpecs} {
		f := standIn(t, true)
		add := func(name, cidr string) {
			o := f.addNode(t, name, cidr)
			l := wanted(name)
			l.Endpoints[subnet.IPv4].Subnet = prefix(cidr)
			f.annotate(t, name, annotations(t, l, o))
		}
		for i := range 90 {
			add(fmt.Sprintf("node-%03d", i), fmt.Sprintf("10.244.%d.0/24", i))
		}
		for i := range liars {
			name := fmt.Sprintf("liar-%03d", i)
			add(name, fmt.Sprintf("10.244.%d.0/24", 100+i))
			f.annotate(t, name, map[string]any{PodCIDRsAnnotation: "10.244.0.0/17"})
		}
		w := storetest.Watch(t, f.open(t, "one"), nil)
		state := w.Synced(1)
		names, _ := peersOf(t, state.Leases)
		if len(names) != 90 || len(state.Leases) != 90+liars {
			t.Errorf("of %d liars, the peers are %q", liars, names)
		}
		want := map[string]int{"WATCH initial": 1, "GET": 1}
		if liars > 1 {
			want = map[string]int{"WATCH initial": 1, "LIST whole": 1}
		}
		f.expect(t, fmt.Sprintf("a start with %d liars", liars), want)
		add("late", "10.244.220.0/24")
		add("later", "10.244.95.0/24")
		names, _ = peersOf(t, w.There("later").Leases)
		if len(names) != 92 {
			t.Errorf("of %d liars, the peers are %q", liars, names)
		}
		f.expect(t, "an honest Node", map[string]int{})
	}
}

// TestWrongAnnotationsOnAllNodes: whoever writes wrong annotations on all Nodes does not make every node read them all
// at once, and nobody loses a subnet meanwhile.
func TestWrongAnnotationsOnAllNodes(t *testing.T) {
	const nodes = 3 * disputeReads
	f := standIn(t, true)
	for i := range nodes {
		name, cidr := fmt.Sprintf("node-%03d", i), fmt.Sprintf("10.244.%d.0/24", i)
		l := wanted(name)
		l.Endpoints[subnet.IPv4].Subnet = prefix(cidr)
		f.annotate(t, name, annotations(t, l, f.addNode(t, name, cidr)))
	}
	s := f.open(t, "one")
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	f.verbs()
	began := time.Now()
	for i := range nodes {
		name := fmt.Sprintf("node-%03d", i)
		f.annotate(t, name, map[string]any{
			PodCIDRsAnnotation: fmt.Sprintf("10.244.%d.0/24", (i+1)%nodes), DefaultPrefix + "public-ip": "192.0.2.9",
		})
	}
	eventually(t, "disputed Nodes in the status", func() bool { return len(s.Unread().Disputed) > 0 })
	state := w.Until(func(s storetest.State) string {
		for name, r := range s.Leases {
			if r.Bad == nil && r.Endpoints[subnet.IPv4].PublicIP != netip.MustParseAddr("192.0.2.9") {
				return "a change of " + name
			}
		}
		return ""
	})
	periods := int(time.Since(began)/disputeTime) + 1
	if got := f.verbs()["GET"]; got > periods*disputeReads {
		t.Errorf("%d of %d Nodes were read within %d times %s", got, nodes, periods, disputeTime)
	}
	for name, r := range state.Leases {
		var i int
		if _, err := fmt.Sscanf(name, "node-%d", &i); err != nil {
			t.Fatal(err)
		}
		if want := prefix(fmt.Sprintf("10.244.%d.0/24", i)); r.Bad == nil && r.Endpoints[subnet.IPv4].Subnet != want {
			t.Errorf("%s has the subnet %s", name, r.Endpoints[subnet.IPv4].Subnet)
		}
	}
}

// TestDisputeThatCannotBeDecided: while the API server does not show a Node's spec, its lease stays as it was.
func TestDisputeThatCannotBeDecided(t *testing.T) {
	f := standIn(t, true)
	f.leased(t, "a", "10.244.1.0/24")
	f.leased(t, "b", "10.244.2.0/24")
	s := f.open(t, "one")
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	f.standIn.Deny("get nodes a")
	f.annotate(t, "a", map[string]any{PodCIDRsAnnotation: "10.244.2.0/24", DefaultPrefix + "public-ip": "192.0.2.7"})
	state := w.Until(func(s storetest.State) string {
		if got := s.Leases["a"].Endpoints[subnet.IPv4].PublicIP; got != netip.MustParseAddr("192.0.2.7") {
			return fmt.Sprintf("the new public IP; it is %s", got)
		}
		return ""
	})
	if names, why := peersOf(t, state.Leases); len(names) != 2 {
		t.Errorf("the peers are %q, %v", names, why)
	}
	waitUnread(t, s, "a")
	// A new daemon believes what is written, and the older Node takes precedence, until it can read.
	second := f.open(t, "one")
	list := storetest.Watch(t, second, nil)
	if got := list.Synced(1).Names(); len(got) != 2 {
		t.Errorf("there is %q", got)
	}
	waitUnread(t, second, "a")
	f.standIn.Deny()
	for _, w := range []*storetest.Watcher{w, list} {
		wantPeers(t, w, "a", "b")
	}
	waitUnread(t, s)
	waitUnread(t, second)
}

// TestNamedWithoutASpec: a Node that has no podCIDR cannot name another one's.
func TestNamedWithoutASpec(t *testing.T) {
	f := standIn(t, true)
	o := f.addNode(t, "a")
	l := wanted("a")
	l.Endpoints[subnet.IPv4].Subnet = prefix("10.244.1.0/24")
	f.annotate(t, "a", annotations(t, l, o))
	f.annotate(t, "a", map[string]any{PodCIDRsAnnotation: "10.244.1.0/24"})
	w := storetest.Watch(t, f.open(t, "one"), nil)
	w.Synced(1)
	f.leased(t, "b", "10.244.1.0/24")
	wantPeers(t, w, "a", "b")
	list := storetest.Watch(t, f.open(t, "one"), nil)
	list.Synced(1)
	wantPeers(t, list, "a", "b")
}
