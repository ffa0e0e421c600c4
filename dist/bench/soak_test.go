package bench

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// TestSoak has leases, pods and faults come and go for as few rounds as can be judged. What can be counted stays as it was; memory
// is for a longer run to judge.
func TestSoak(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := Run(t.Context(), Options{Bin: bin, Only: []string{"soak"}, SoakFaults: 1, Seed: rand.Uint64(), Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	found := map[string]*Series{}
	for _, s := range r.Series {
		found[s.Of+" "+s.What] = s
		if len(s.Samples) != fewestSamples {
			t.Errorf("%s, %s: %d samples, want %d", s.Of, s.What, len(s.Samples), fewestSamples)
		}
		if s.grows() && s.Unit == "" {
			t.Errorf("%s, %s grows: %v\n%s", s.Of, s.What, s.Samples, &log)
		}
	}
	for name, atLeast := range map[string]float64{
		"node1 goroutines": 10, "node1 RssAnon": 1, "node2 heap at which Go collects": 1, "node2 file descriptors": 5, "node1 threads": 2,
		"node3 routes": 2 * soakLeases, "node3 neighbours": 2 * soakLeases, "node3 FDB entries": 2 * soakLeases, "node3 nexthop objects": soakLeases,
		"node1 links": 4, "node1 policy rules": 6, "node2 packet filter: rules, chains, set elements": 2 * soakLeases, "node1 files in /run and /var/lib": 4,
		"etcd keys": soakLeases + 4, "etcd leases": 3, "etcd watches": 3, "lab processes": 4,
	} {
		if s := found[name]; s == nil || s.Last < atLeast {
			t.Errorf("%s: %+v, want %g or more", name, s, atLeast)
		}
	}
}

// TestSeries: what grows is found, however it does; noise, and what stays as it is after it has come to its size, is not.
func TestSeries(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	for _, tt := range []struct {
		name  string
		at    func(round int) float64
		by    bound
		grows bool
	}{
		{"the same all the time", func(int) float64 { return 27 }, exact, false},
		{"one more each round", func(i int) float64 { return float64(27 + i) }, nearly, true},
		{"one more every fifth round", func(i int) float64 { return float64(27 + i/5) }, nearly, true},
		{"one more, once", func(i int) float64 { return float64(27 + i/30) }, exact, true},
		{"one fewer, once", func(i int) float64 { return float64(27 - i/30) }, exact, false},
		{"up at first, then the same", func(i int) float64 { return float64(20 + min(i, 15)) }, exact, false},
		{"one out of line", func(i int) float64 { return 27 + 400*float64(i/50*(50/max(i, 1))) }, exact, false},
		{"noise", func(int) float64 { return 30 + 4*rng.Float64() }, memoryNoise, false},
		{"noise that rises by a tenth of its size a round", func(i int) float64 { return 30 + 4*rng.Float64() + 0.1*float64(i) }, memoryNoise, true},
	} {
		s := &Series{}
		for i := range 60 {
			s.Samples = append(s.Samples, tt.at(i))
		}
		if s.judge(tt.by); s.grows() != tt.grows {
			t.Errorf("%s: grows is %t, want %t: %g to %g, bound %g", tt.name, s.grows(), tt.grows, s.Middle, s.Last, *s.Bound)
		}
	}
	s := &Series{Samples: []float64{1, 2, 3}}
	if s.judge(told); s.grows() || s.Flat != nil {
		t.Errorf("what is only told is judged: %+v", s)
	}
}

// TestSeriesReported: what grows is in the table, and keeps a report from saying that all is reached.
func TestSeriesReported(t *testing.T) {
	s := &Series{Name: "Soak/of=node1/what=RSS", Of: "node1", What: "RSS", Unit: "MB", Samples: []float64{10, 10, 10, 10, 10, 10, 17, 18, 19}}
	s.judge(memoryNoise)
	r := &Report{Series: []*Series{s}}
	if r.Reached() {
		t.Error("all is reached, though something grows")
	}
	var out bytes.Buffer
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	if want := "node1 RSS, MB 9 10 10 19 10 18 8 0.50 NO 0.17"; !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
		t.Errorf("no %q in\n%s", want, &out)
	}
}
