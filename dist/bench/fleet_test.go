package bench

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network"
)

// TestFleet starts a few real nodes among more leases, and breaks etcd and a daemon.
func TestFleet(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := Run(t.Context(), Options{Bin: bin, Only: []string{"fleet"}, FleetNodes: 3, FleetLeases: 50, Rest: time.Second, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	found := map[string]*Figure{}
	for _, f := range r.Figures {
		found[f.Name] = f
	}
	for _, name := range []string{"FleetStart", "FleetReady", "FleetCPUMost", "FleetMemoryRestMedian", "FleetRequests"} {
		if f := found[name+"/nodes=3/leases=50"]; f == nil || f.Value <= 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	// The kernels of a busy machine can have a change before its acknowledgement is read.
	if f := found["FleetChange"]; f == nil || len(f.Samples) < fleetChanges {
		t.Errorf("FleetChange: %+v", f)
	}
	for _, name := range []string{"FleetKilled", "FleetEtcd", "FleetEtcdRequests"} {
		if f := found[name]; f == nil || f.Value <= 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for _, name := range []string{"FleetLost", "FleetWrong"} {
		if f := found[name]; f == nil || f.Value != 0 {
			t.Errorf("%s: %+v, want 0", name, f)
		}
	}
}

// TestDiffer: a kernel that lacks something, or has it otherwise, is not taken for one that holds all.
func TestDiffer(t *testing.T) {
	want := entries(0, 2, ipv4(), 0)
	have := map[entry]network.MAC{}
	for i := range 2 {
		if err := addEntries(have, absent(i, ipv4(), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if n := differ(want, have); n != 0 || len(want) != 6 {
		t.Errorf("%d of %d entries for two leases are wrong, want none of 6", n, len(want))
	}
	if n := differ(entries(0, 2, ipv4(), 1), have); n != 4 {
		t.Errorf("with other MAC addresses %d entries are wrong, want the 4 that have one", n)
	}
	for e := range want {
		delete(have, e)
	}
	if n := differ(want, have); n != 6 {
		t.Errorf("of nothing %d entries are wrong, want 6", n)
	}
}
