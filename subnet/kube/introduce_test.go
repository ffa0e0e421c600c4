package kube

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// TestOwnNodeComesFirst: what concerns this node alone is handed over before the list, with or without a lease of its
// own; not without a network config or a Node, and only once.
func TestOwnNodeComesFirst(t *testing.T) {
	const config = `{"Network":"10.244.0.0/16"}`
	f := standIn(t, true)
	f.leased(t, "two", "10.244.2.0/24")
	first := func(node string, want int) (subnet.Event, *Store) {
		t.Helper()
		s := f.open(t, node)
		w := storetest.Watch(t, s, nil)
		w.Synced(1)
		f.harm.Restart(t)
		last := fmt.Sprintf("last-%d", f.standIn.Version())
		f.addNode(t, last, "10.244.9.0/24")
		f.annotate(t, last, flannels("192.0.2.8"))
		state := w.There(last)
		introduced := 0
		for _, e := range state.Events {
			if e.Own {
				introduced++
			}
		}
		if introduced != want {
			t.Errorf("%s: %d events with what is its own, want %d", node, introduced, want)
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		return state.Events[0], s
	}
	first("one", 0)
	f.write(t, "config", config)
	first("one", 0) // it has no Node

	f.addNode(t, "one", "10.244.1.0/24")
	f.annotate(t, "one", map[string]any{DefaultPrefix + "node-public-ip": "192.0.2.9"})
	e, s := first("one", 1)
	if e.Type != subnet.Page || !e.Own || !e.ConfigSet || string(e.Config) != config || len(e.Put) > 0 {
		t.Errorf("the first event is %+v", e)
	}
	if got := s.Advice().PublicIP[subnet.IPv4]; got != netip.MustParseAddr("192.0.2.9") || s.Allocation() == 0 {
		t.Errorf("advice %s, allocation %d", got, s.Allocation())
	}
	f.annotate(t, "one", flannels("192.0.2.1"))
	if e, _ = first("one", 1); len(e.Put) != 1 || e.Put[0].Name != "one" || e.Put[0].Bad != nil ||
		e.Put[0].Endpoints[subnet.IPv4].Subnet != prefix("10.244.1.0/24") {
		t.Errorf("the first event with a lease is %+v", e)
	}
}
