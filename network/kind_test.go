package network

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// wgKey and wgPeer are a kind of object that only these tests have: a peer on a device of another sort.
type (
	wgKey  struct{ Link, PublicKey string }
	wgPeer struct{ Endpoint netip.AddrPort }
)

func (k wgKey) String() string { return k.PublicKey + " dev " + k.Link }

// withPeers adds that kind to some tables, and to a kernel that holds its objects in a map. A state has no field for it, so a
// peer stands for each FDB entry.
func withPeers(t *Tables, kernel map[wgKey]wgPeer, refuse *error) *Table[wgKey, wgPeer] {
	peers := add(t, kind[wgKey, wgPeer]{
		name: "peer",
		items: func(s *State) (items []Item[wgKey, wgPeer]) {
			for _, x := range s.FDB {
				key := wgKey{x.Key.Link, x.Key.MAC.String()}
				items = append(items, Item[wgKey, wgPeer]{key, wgPeer{netip.AddrPortFrom(x.Value.Remote, 51820)}})
			}
			return items
		},
		ours: func(k wgKey, _ wgPeer) bool { return t.OwnsLink(k.Link) },
		link: func(k wgKey, _ wgPeer) string { return k.Link },
	})
	peers.ApplyEach(func(k wgKey, c Change[wgPeer]) error {
		if *refuse != nil {
			return *refuse
		}
		if delete(kernel, k); c.Wanted {
			kernel[k] = c.Want
		}
		return nil
	})
	return peers
}

// TestNewKind: one entry in the list makes a new kind of object set, repaired, counted, named and removed as all are.
func TestNewKind(t *testing.T) {
	r, kernel := newReconciler()
	there, refuse := map[wgKey]wgPeer{}, error(nil)
	peers := withPeers(r.Tables, there, &refuse)
	now := start
	pass := func() Result {
		t.Helper()
		now = now.Add(time.Minute)
		kernel.notify()
		return r.Pass(now)
	}
	lease := Owner{Name: "lease"}
	want := peer(0)
	key := peers.kind.items(&want)[0].Key
	value := peers.kind.items(&want)[0].Value

	r.Tables.Replace(lease, State{}, want)
	if _, set := there[key]; pass().Set == 0 && set {
		t.Error("set on a device that is not there, and not wanted yet")
	}
	if count := r.Tables.Counts()["peer"]; count != (Count{Wanted: 1, Present: 1}) {
		t.Errorf("after the first pass: %+v", count)
	}

	r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
	pass()
	if got := there[key]; got != value || !r.Tables.Holds(want) || r.Tables.Pending() != 0 {
		t.Fatalf("set to %v, want %v; %d pending", got, value, r.Tables.Pending())
	}

	// Another process changes it, and it is repaired.
	refuse = errors.New("no buffer space available")
	there[key] = wgPeer{}
	r.Tables.Attribute("pid 7 (wg)")
	peers.Observe(key, wgPeer{})
	r.Tables.Attribute("")
	if got := pass(); len(got.Failures) != 1 || got.Failures[0].Kind != "peer" || got.Failures[0].Key != key.String() {
		t.Errorf("failures %+v", got.Failures)
	}
	if kind, k := r.Tables.Lacks(want); kind != "peer" || k != key.String() {
		t.Errorf("lacks %s %s", kind, k)
	}
	if owners := slices.Collect(maps.Keys(r.Tables.PendingOwners())); !slices.Equal(owners, []string{"lease"}) {
		t.Errorf("pending owners %v", owners)
	}
	refuse = nil
	repair := Repair{Kind: "peer", Cause: "changed", Key: key.String(), Count: 1, By: "pid 7 (wg)"}
	if got := pass(); !slices.Equal(got.Repairs, []Repair{repair}) || there[key] != value {
		t.Errorf("repairs %+v, want %+v; the kernel holds %v", got.Repairs, repair, there[key])
	}

	// It vanishes with its device and is set again with it, which is no repair.
	clear(there)
	kernel.delLink(device)
	kernel.notify()
	if peers.Get(key).Present {
		t.Error("present without its device")
	}
	if got := pass(); slices.ContainsFunc(got.Repairs, func(x Repair) bool { return x.Kind == "peer" }) || there[key] != value {
		t.Errorf("after the device was deleted: %+v; the kernel holds %v", got, there[key])
	}

	// No owner wants it any more.
	r.KeepUnwanted = true
	r.Tables.Replace(lease, want, State{})
	pass()
	if got := r.Tables.Unwanted(); len(got) == 0 || got[0] != "peer "+key.String() {
		t.Errorf("unwanted %q, want the peer first", got)
	}
	r.KeepUnwanted = false
	pass()
	if len(there) != 0 || len(peers.cells) != 0 || r.Tables.Pending() != 0 {
		t.Errorf("after the removal: %v, %d cells, %d pending", there, len(peers.cells), r.Tables.Pending())
	}
}

// TestKinds pins the order in which objects are set, and the names that the status, the metrics and doctor show.
func TestKinds(t *testing.T) {
	want := []string{"vtep", "link", "bridge", "port", "wireguard", "wireguard-peer", "allowed-ip", "address", "fdb", "neighbour", "nexthop", "route", "sysctl", "fast-peer", "program"}
	if got := Kinds(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	counts := NewTables().Counts()
	if got := slices.Sorted(maps.Keys(counts)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("counts of %q, want of %q", got, want)
	}
}

// TestNoApply: what nothing can change fails, and does not stay pending in silence.
func TestNoApply(t *testing.T) {
	tables := NewTables()
	tables.VTEPs.Want(self, netip.MustParseAddr("192.0.2.7"), VTEP{})
	r := &Reconciler{Tables: tables}
	if got := r.Pass(start); len(got.Failures) != 1 || !errors.Is(got.Failures[0].Err, errNoApply) || got.Retry.IsZero() {
		t.Errorf("%+v, want a failure", got)
	}
}
