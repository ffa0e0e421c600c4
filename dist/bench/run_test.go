package bench

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestRun measures what needs few leases, of the real daemon.
func TestRun(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := Run(t.Context(), Options{Bin: bin, Only: []string{"renewal", "binaries", "sizes", "read"}, Rounds: 1, Sizes: []int{10, 50}, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if len(r.Points) != 2 || r.Points[1].Start <= 0 || r.Points[1].Floor <= 0 || r.Points[1].Requests <= 0 || r.Points[1].Resident <= 0 {
		t.Errorf("points: %+v", r.Points)
	}
	found := map[string]float64{}
	for _, f := range r.Figures {
		found[f.Name] = f.Value
	}
	if v, ok := found["RenewalEvents"]; !ok || v != 0 {
		t.Errorf("renewals caused %g events (%t)", v, ok)
	}
	for _, name := range []string{"Binary/selvaged", "ReadCPU/leases=10000"} {
		if found[name] <= 0 {
			t.Errorf("%s: %g", name, found[name])
		}
	}
}
