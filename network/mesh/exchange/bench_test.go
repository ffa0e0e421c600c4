package exchange

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
		o := Options{Address: a.String() + ":" + port, Files: p.sign(fmt.Sprint("node", i), certs.For(a.String())), Log: log}
		s, err := listen(o, patiently())
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

// BenchmarkMesh asks 1,000 nodes, whose servers run in the same process and share the CPUs, and makes the view. It reports the CPU time of both
// sides, and the memory that both need at the peak beyond what the servers have at rest.
func BenchmarkMesh(b *testing.B) {
	q, targets := simulate(b, 1000)
	runtime.GC()
	rest := memory()
	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	var sampling sync.WaitGroup
	sampling.Go(func() {
		for ctx.Err() == nil {
			peak.Store(max(peak.Load(), memory()))
			time.Sleep(20 * time.Millisecond)
		}
	})
	before := cpuTime(b)
	for b.Loop() {
		answers, err := Ask(ctx, q, targets)
		if err != nil {
			b.Fatal(err)
		}
		if view := mesh.Assemble(targets, answers, answers[0].Summary.Now); view.Counts.Ready != len(targets) {
			b.Fatalf("%+v", view.Counts)
		}
	}
	b.ReportMetric((cpuTime(b)-before).Seconds()/float64(b.N), "CPU-s/op")
	cancel()
	sampling.Wait()
	b.ReportMetric(float64(peak.Load()-min(peak.Load(), rest))/(1<<20), "MB-peak")
}

// memory returns the bytes of heap and stacks in use.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// cpuTime returns the CPU time that this process has taken.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
