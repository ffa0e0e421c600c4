package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"gonum.org/v1/gonum/floats"
)

// start starts all daemons, and waits until each kernel holds what leads to all nodes, and each daemon says that it is ready.
func (f *fleet) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	b := f.bench
	before, err := f.usage(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := f.each(func(m *member) error { return m.Start() }); err != nil {
		return err
	}
	leases, err := f.leases(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var whole []float64
	err = f.each(func(m *member) error {
		want, err := f.wanted(leases, m.Name())
		if err != nil {
			return err
		}
		at, err := m.await(ctx, m.listen.expect(want))
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		whole = append(whole, at.Sub(began).Seconds())
		return nil
	})
	if err == nil {
		err = f.lab.WaitReady(ctx)
	}
	if err != nil {
		return err
	}
	ready := time.Since(began)
	of := fmt.Sprintf("nodes=%d/leases=%d", len(f.members), b.FleetLeases)
	words := fmt.Sprintf("%d nodes, %d leases besides", len(f.members), b.FleetLeases)
	add := func(name, what, unit string, value float64, samples ...float64) {
		b.report.add(Figure{Name: "Fleet" + name + "/" + of, What: words + ": " + what, Unit: unit, Value: value, Samples: samples})
	}
	add("Start", "all start at once, until each kernel holds what leads to all", "s", quantile(1, whole), whole...)
	add("StartHalf", "until half of the kernels do", "s", median(whole))
	add("Ready", "until all daemons say that they are ready", "s", ready.Seconds())
	rested := cmp.Or(b.Rest, atRest)
	pause(ctx, rested)
	after, err := f.usage(ctx)
	if err != nil {
		return err
	}
	cpu, peak, rest, anon, err := f.daemons()
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name, what, unit string
		values           []float64
	}{
		{"CPU", "a daemon's CPU for that", "ms", cpu}, {"MemoryPeak", "a daemon's memory, peak", "MB", peak},
		{"MemoryRest", fmt.Sprintf("a daemon's memory %s after", rested), "MB", rest}, {"MemoryRestAnon", "of it, heap and stacks (RssAnon)", "MB", anon},
	} {
		add(x.name+"Median", x.what+", median", x.unit, median(x.values), x.values...)
		add(x.name+"Most", x.what+", most", x.unit, quantile(1, x.values))
	}
	by, requests := since(before.requests, after.requests)
	by["Range"], requests = by["Range"]-f.asked, requests-f.asked
	b.report.add(Figure{Name: "FleetRequests/" + of, What: words + ": requests to etcd, a node", Unit: "requests", Value: requests / float64(len(f.members)),
		Limit: atMost(6 + float64(b.FleetLeases+len(f.members))/1000), LimitIs: "6 + N/1000"})
	b.report.note("fleet: requests to etcd for the start of all: %v", by)
	add("CPUAll", "all daemons' CPU for that", "s", floats.Sum(cpu)/1000)
	add("OwnCPU", "the CPU of who listens to all kernels", "s", (after.own - before.own).Seconds())
	add("EtcdCPU", "etcd's CPU for that", "s", (after.etcd.cpu - before.etcd.cpu).Seconds())
	add("EtcdPeak", "etcd's memory, peak", "MB", after.etcd.memory.Peak/1e6)
	return nil
}

// fleetUsage is what everybody has used by a moment.
type fleetUsage struct {
	etcd     usage
	requests map[string]float64
	own      time.Duration // CPU of this very process
}

func (f *fleet) usage(ctx context.Context) (u fleetUsage, err error) {
	if u.etcd, err = usageOf(f.etcd.PID()); err != nil {
		return u, err
	}
	if u.own, _, err = cpuOf(os.Getpid()); err != nil {
		return u, err
	}
	all, err := metrics(ctx, f.etcd.Endpoint())
	u.requests = counters(all, "grpc_server_started_total", "grpc_method")
	return u, err
}

// daemons returns what each daemon has used: milliseconds of CPU, with what it ran, and megabytes.
func (f *fleet) daemons() (cpu, peak, rest, anon []float64, err error) {
	for _, n := range f.members {
		own, programs, err := cpuOf(n.PID())
		if err != nil {
			return nil, nil, nil, nil, err
		}
		m, err := memoryOf(n.PID())
		if err != nil {
			return nil, nil, nil, nil, err
		}
		cpu, peak, rest, anon = append(cpu, milliseconds(own+programs)), append(peak, m.Peak/1e6), append(rest, m.Resident/1e6), append(anon, m.Anon/1e6)
	}
	return cpu, peak, rest, anon, nil
}
