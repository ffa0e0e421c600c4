package bench

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/fastpath"
)

func pathBench(t *testing.T) *bench {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Options: Options{Bin: bin, Rounds: 1, Log: t.Output()}, report: &Report{}}
}

// TestPath measures between real pods: many leases, and an underlay that takes no large packets.
func TestPath(t *testing.T) {
	b := pathBench(t)
	c := pathCase{name: "case=test", what: "test", filter: lab.Filter{IPTables: "none", NFTables: lab.NFTablesOn}, leases: 300, wire: true}
	if err := b.path(t.Context(), c, 1); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range b.report.Figures {
		names = append(names, f.Name)
		if f.Value <= 0 || f.Floor.Value <= 0 || f.Veth.Value <= 0 || len(f.Floor.Ratios) != 1 {
			t.Errorf("%s: %+v, floor %+v, veth pair %+v", f.Name, f, f.Floor, f.Veth)
		}
	}
	want := []string{
		"Throughput/proto=tcp/flows=1/case=test", "PathCPU/proto=tcp/flows=1/case=test", "Throughput/proto=udp/flows=1/case=test", "PathCPU/proto=udp/flows=1/case=test",
		"RoundTrip/proto=tcp/p=50/case=test", "RoundTrip/proto=tcp/p=99/case=test", "RoundTrip/proto=udp/p=50/case=test", "RoundTrip/proto=udp/p=99/case=test",
	}
	if !slices.Equal(names, want) {
		t.Errorf("figures %q, want %q", names, want)
	}
}

// TestFastPath measures with the fast path on everything that is measured with it: of real daemons, and a few flows and
// pods.
func TestFastPath(t *testing.T) {
	b := pathBench(t)
	b.PathFlows, b.PathPods, b.PathRest, b.PathTurn = 200, 2, time.Millisecond, 10*time.Millisecond
	filter := lab.Filter{IPTables: "nft", NFTables: lab.NFTablesOn}
	for _, c := range []pathCase{
		{name: "case=whole", what: "whole", filter: filter, fast: true},
		{name: "case=kube", what: "kube", filter: filter, fast: true, wire: true, services: 3},
	} {
		if !fastpath.Permitted() { // in a user namespace: then there is nothing but the slow path
			c.fast = false
			if err := b.path(t.Context(), c, 1); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p, err := b.dataPath(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.fastPath(t.Context(), c, p, &fastSamples{}), p.close()); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]bool{}
	for _, f := range b.report.Figures {
		if found[f.Name] = true; f.Value <= 0 && f.Name != "FastPathRest" {
			t.Errorf("%s: %+v", f.Name, f)
		}
	}
	for _, name := range []string{
		"FastPathUDP/case=whole", "FastPathShortGain/case=kube", "FastPathNested/case=whole", "FastPathFlows/case=whole",
		"FastPathPods/case=whole", "FastPathServiceTCP/case=kube", "FastPathRest",
	} {
		if !found[name] && fastpath.Permitted() {
			t.Errorf("%s was not measured", name)
		}
	}
}

// TestPathCases: benchstat tells figures apart by their names, which have no spaces.
func TestPathCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range pathCases() {
		if seen[c.name] || strings.ContainsAny(c.name, " \t") {
			t.Errorf("%q is there twice, or has a space in it", c.name)
		}
		seen[c.name] = true
	}
}

// TestSettings makes each setting and undoes it, on devices of real daemons. That it is there is checked by what makes it.
func TestSettings(t *testing.T) {
	b := pathBench(t)
	for _, c := range settingCases() {
		if c.wire {
			continue
		}
		p, err := b.dataPath(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.settings(nil) {
			for _, on := range []bool{true, false} {
				if err := p.apply(t.Context(), c, s, on); err != nil {
					t.Errorf("%s, %t: %v", s.name, on, err)
				}
			}
			if _, err := p.pods.latency("udp"); err != nil {
				t.Errorf("after %s: %v", s.name, err)
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSettingsOf(t *testing.T) {
	var names []string
	for _, c := range settingCases() {
		for _, s := range c.settings([]string{"gbp", "no-udpcsum"}) {
			names = append(names, c.what+" "+s.name)
		}
	}
	if want := []string{"whole gbp", "wire gbp", "whole no-udpcsum", "wire no-udpcsum"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}
