package exchange

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
)

// simulate serves the summaries of many nodes, each at an address of its own on the loopback interface, and returns how they are asked.
func simulate(t testing.TB, nodes int) (Query, []mesh.Target) {
	t.Helper()
	p := newPKI(t)
	client := p.sign("client")
	log := logrus.New()
	log.SetOutput(io.Discard)
	_, port, _ := strings.Cut(freePort(t, "127.77.0.1"), ":")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	targets := make([]mesh.Target, nodes)
	for i := range targets {
		a := netip.AddrFrom4([4]byte{127, 77, byte(i / 250), byte(i%250 + 1)})
		s, err := Listen(Options{Address: a.String() + ":" + port, Files: p.sign(fmt.Sprint("node", i), certs.For(a.String())), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(ctx, &daemon{node: fmt.Sprint("node", i)}) }()
		t.Cleanup(func() { cancel(); <-done })
		await(t, "a summary", func() bool { return s.last.Load() != nil })
		targets[i] = mesh.Target{Key: "key", Node: fmt.Sprint("node", i), Public: []netip.Addr{a}}
	}
	return Query{Files: client, Port: uint16(number), Timeout: patient, Parallel: 64}, targets
}

// TestManyNodes: each of many nodes gives its own answer.
func TestManyNodes(t *testing.T) {
	q, targets := simulate(t, 200)
	answers, err := Ask(t.Context(), q, targets)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range answers {
		if a.Summary == nil || a.Summary.Node != targets[i].Node {
			t.Errorf("%s: %+v", targets[i].Node, a)
		}
	}
}

// BenchmarkMesh asks 1,000 nodes, whose servers run in the same process and share the CPUs, and makes the view. It reports the memory of both sides
// at the peak, and what the asking side has allocated in total.
func BenchmarkMesh(b *testing.B) {
	q, targets := simulate(b, 1000)
	var before, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	for b.Loop() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			answers, err := Ask(context.Background(), q, targets)
			if err != nil {
				b.Error(err)
				return
			}
			if view := mesh.Assemble(targets, answers, answers[0].Summary.Now); view.Counts.Ready != len(targets) {
				b.Errorf("%+v", view.Counts)
			}
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse+m.StackInuse)
				runtime.Gosched()
			}
		}
	}
	b.ReportMetric(float64(peak-min(peak, before.HeapInuse+before.StackInuse))/(1<<20), "MB-peak")
}
