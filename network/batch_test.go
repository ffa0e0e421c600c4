package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// refused is an error that says for which key it is.
type refused string

func (r refused) Error() string { return "refused: " + string(r) }

// TestBatches: more entries than fit into one batch are all made in one pass, whichever of them fail, and each failure is
// told of its own key.
func TestBatches(t *testing.T) {
	const peers = 2*batchSize + 44
	r, kernel := node(0)
	kernel.batches = nil
	var bad []string
	kernel.refuse = func(kind, k string) error {
		if slices.Contains(bad, kind+" "+k) {
			return refused(kind + " " + k)
		}
		return nil
	}
	keys := func(s State) []string {
		return []string{
			"fdb " + s.FDB[0].Key.String(), "neighbour " + s.Neighbours[0].Key.String(),
			fmt.Sprint("nexthop ", s.Nexthops[0].Key), "route " + s.Routes[0].Key.String(),
		}
	}
	check := func(name string, got Result, calls, done int) {
		t.Helper()
		var failed []string
		for _, f := range got.Failures {
			failed = append(failed, f.Kind+" "+f.Key)
			if f.Err != refused(f.Kind+" "+f.Key) {
				t.Errorf("%s: %s %s: %v", name, f.Kind, f.Key, f.Err)
			}
		}
		slices.Sort(failed)
		slices.Sort(bad)
		if !slices.Equal(failed, bad) || got.Set+got.Removed != done || len(kernel.calls) != calls {
			t.Errorf("%s: %d done in %d calls, failed %v; want %d in %d, failed %v", name, got.Set+got.Removed, len(kernel.calls), failed, done, calls, bad)
		}
		kernel.calls = nil
	}
	for i := range peers {
		s := byID(peer(i))
		r.Tables.Replace(Owner{Name: "peer"}, State{}, s)
		switch i % 100 {
		case 7:
			bad = append(bad, keys(s)[:2]...)
		case 8:
			bad = append(bad, keys(s)[3])
		}
	}
	got := r.Pass(start)
	check("set", got, 4*peers, 4*peers-len(bad))
	var want []string
	for _, kind := range []string{"fdb", "neighbour", "nexthop", "route"} {
		want = append(want, fmt.Sprint(kind, " ", batchSize), fmt.Sprint(kind, " ", batchSize), kind+" 44")
	}
	if !slices.Equal(kernel.batches, want) {
		t.Errorf("the batches are\n  %s\nwant\n  %s", strings.Join(kernel.batches, "\n  "), strings.Join(want, "\n  "))
	}

	again := len(bad)
	bad = nil
	got = r.Pass(got.Retry)
	check("what failed", got, again, again)
	kernel.notify()
	if n := r.Tables.Pending(); n != 0 || len(kernel.routes) != peers || len(kernel.nexthops) != peers {
		t.Errorf("%d pending, %d routes, %d nexthops", n, len(kernel.routes), len(kernel.nexthops))
	}

	for i := range peers {
		s := byID(peer(i))
		r.Tables.Replace(Owner{Name: "peer"}, s, State{})
		if i%100 == 9 {
			bad = append(bad, keys(s)[1], keys(s)[2])
		}
	}
	got = r.Pass(start.Add(time.Minute))
	check("removed", got, 4*peers, 4*peers-len(bad))
}

// TestOneBatch: a batch is never larger than the limit, nor is there an empty one.
func TestOneBatch(t *testing.T) {
	for n, want := range map[int][]string{
		0:             nil,
		1:             {"route 1"},
		batchSize:     {"route 128"},
		batchSize + 1: {"route 128", "route 1"},
	} {
		r, kernel := node(0)
		kernel.batches = nil
		for i := range n {
			r.Tables.Routes.Want(self, peer(i).Routes[0].Key, peer(i).Routes[0].Value)
		}
		if got := r.Pass(start); got.Set != n || !slices.Equal(kernel.batches, want) {
			t.Errorf("%d: %+v in %v, want %v", n, got, kernel.batches, want)
		}
	}
}

// TestDevicesOneByOne: to make one device can show that another is gone, which is then made as what it has become.
func TestDevicesOneByOne(t *testing.T) {
	tables := NewTables()
	want, have := vxlan(), vxlan()
	have.MTU = 1280
	names := []string{"flannel.1", "flannel.2"}
	for _, name := range names {
		tables.Links.Want(self, name, want)
		tables.Links.Observe(name, want)
		tables.Links.Observe(name, have)
	}
	var found []bool
	tables.ApplyLinks(func(name string, c Change[Link]) (effects LinkEffects, err error) {
		found = append(found, c.Present)
		for _, other := range names {
			if other != name && len(found) == 1 {
				effects.RenamedFrom = other
			}
		}
		return effects, nil
	})
	r := &Reconciler{Tables: tables}
	if got := r.Pass(start); got.Set != 2 || got.Repaired != 2 || !slices.Equal(found, []bool{true, false}) {
		t.Errorf("%+v, there were %v; want the first one there and the second not", got, found)
	}
}

// TestLinkEffects: what a change of a device did to the objects on it is taken into the tables, also where the change
// failed in the end.
func TestLinkEffects(t *testing.T) {
	for _, tt := range []struct {
		name    string
		effects LinkEffects
		err     error
		gone    [4]bool // the other device, its address, the device's address, its FDB entry
	}{
		{"nothing", LinkEffects{}, nil, [4]bool{}},
		{"deleted", LinkEffects{Deleted: true}, errNoDevice, [4]bool{false, false, true, true}},
		{"renamed", LinkEffects{RenamedFrom: "flannel.2"}, nil, [4]bool{true, true, false, false}},
		{"FDB flushed", LinkEffects{FDBFlushed: true}, errNoDevice, [4]bool{false, false, false, true}},
	} {
		tables := NewTables()
		wrong := vxlan()
		wrong.MTU = 1280
		tables.Links.Want(self, device, vxlan())
		tables.Links.Observe(device, wrong)
		tables.Links.Observe("flannel.2", vxlan())
		address := AddressKey{Link: device, Prefix: netip.MustParsePrefix("10.5.9.0/32")}
		other := AddressKey{Link: "flannel.2", Prefix: address.Prefix}
		tables.Addresses.Observe(address, Address{})
		tables.Addresses.Observe(other, Address{})
		fdb := FDBKey{Link: device, MAC: MAC{0x72, 5: 1}}
		tables.FDB.Observe(fdb, FDB{Permanent: true})
		tables.ApplyLinks(func(string, Change[Link]) (LinkEffects, error) { return tt.effects, tt.err })
		r := &Reconciler{Tables: tables, KeepUnwanted: true}
		r.Pass(start)
		got := [4]bool{
			!tables.Links.Get("flannel.2").Present, !tables.Addresses.Get(other).Present,
			!tables.Addresses.Get(address).Present, !tables.FDB.Get(fdb).Present,
		}
		if got != tt.gone {
			t.Errorf("%s: gone are %v, want %v", tt.name, got, tt.gone)
		}
	}
}
