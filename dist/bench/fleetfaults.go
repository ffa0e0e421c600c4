package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network"
)

// changed writes one lease, and returns how long after etcd's answer each kernel had what leads to it.
func (f *fleet) changed(ctx context.Context, version byte) (took []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	var all []<-chan time.Time
	for _, m := range f.members {
		all = append(all, m.listen.expect(entries(0, 1, ipv4(), version)))
	}
	if err := f.absent.put(ctx, 0, 1, version); err != nil {
		return nil, err
	}
	acknowledged := time.Now()
	for i, m := range f.members {
		at, err := m.await(ctx, all[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name(), err)
		}
		took = append(took, milliseconds(at.Sub(acknowledged)))
	}
	return took, nil
}

// changes changes one lease a few times.
func (f *fleet) changes(ctx context.Context) error {
	var half, all []float64
	for i := range fleetChanges {
		took, err := f.changed(ctx, byte(1+i%2))
		if err != nil {
			return fmt.Errorf("a lease changes: %w", err)
		}
		half, all = append(half, median(took)), append(all, quantile(1, took))
		pause(ctx, 100*time.Millisecond)
	}
	f.bench.report.add(Figure{Name: "FleetChangeHalf", What: "one lease changed, until half of the kernels have it", Unit: "ms", Samples: half})
	f.bench.report.add(Figure{Name: "FleetChange", What: "one lease changed, until all kernels have it", Unit: "ms", Samples: all})
	return nil
}

// killed kills one node's daemon, has something change meanwhile, and starts it again.
func (f *fleet) killed(ctx context.Context) error {
	m := f.members[0]
	m.Kill()
	if err := f.absent.put(ctx, 0, 1, 3); err != nil {
		return err
	}
	pause(ctx, time.Second)
	complete := m.listen.expect(entries(0, 1, ipv4(), 3))
	began := time.Now()
	if err := m.Start(); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	at, err := m.await(waiting, complete)
	if err == nil {
		err = m.WaitReady(waiting)
	}
	if err != nil {
		return fmt.Errorf("a daemon killed and started again: %w", err)
	}
	f.bench.report.add(Figure{Name: "FleetKilled", What: "a daemon killed, started a second later: until what changed meanwhile is in its kernel", Unit: "ms",
		Value: milliseconds(at.Sub(began))})
	return nil
}

// etcdRestarts kills etcd and starts it again, and waits until every node has heard of what is changed then.
func (f *fleet) etcdRestarts(ctx context.Context) error {
	f.lab.Etcd().Kill()
	pause(ctx, time.Second)
	began := time.Now()
	if err := f.lab.Etcd().Start(ctx); err != nil {
		return err
	}
	serves := time.Since(began)
	if _, err := f.changed(ctx, 4); err != nil {
		return fmt.Errorf("after etcd was killed and started again: %w", err)
	}
	whole := time.Since(began)
	after, err := f.usage(ctx)
	if err != nil {
		return err
	}
	_, requests := since(nil, after.requests) // by an etcd that has just begun to count
	f.bench.report.add(Figure{Name: "FleetEtcd", What: "etcd killed, away for a second, started: until all kernels have what is changed then", Unit: "s", Value: whole.Seconds(),
		Floor: &Reference{What: "etcd serves", Value: serves.Seconds()}})
	f.bench.report.add(Figure{Name: "FleetEtcdRequests", What: "requests to etcd for that, a node", Unit: "requests", Value: requests / float64(len(f.members))})
	return nil
}

// check reads all kernels in full, for what nobody may have told.
func (f *fleet) check(ctx context.Context) error {
	leases, err := f.lab.Etcd().Leases(ctx)
	if err != nil {
		return err
	}
	wrong := 0
	for _, m := range f.members {
		want, err := f.wanted(leases, m.Name())
		if err != nil {
			return err
		}
		have, err := readEntries(m.Node)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name(), err)
		}
		wrong += differ(want, have)
	}
	f.bench.report.add(Figure{Name: "FleetWrong", What: fmt.Sprintf("entries that a full read of all %d kernels finds missing or other than wanted", len(f.members)), Unit: "entries",
		Value: float64(wrong), Limit: atMost(0)})
	return nil
}

// differ counts the entries of want that are not in have as they are to be.
func differ(want, have map[entry]network.MAC) (wrong int) {
	for e, mac := range want {
		if got, ok := have[e]; !ok || got != mac {
			wrong++
		}
	}
	return wrong
}

// stream has a pod on each node send to that on the next, until the function returned is called.
func (f *fleet) stream(ctx context.Context) (end func() error, err error) {
	pods := make([]*lab.Pod, len(f.members))
	for i, m := range f.members {
		if pods[i], err = f.lab.AddPod(ctx, m.Node, ""); err != nil {
			return nil, err
		}
	}
	for i, p := range pods { // neighbours on the bridges are resolved
		if r := f.lab.Probe(ctx, p.Endpoint, pods[(i+1)%len(pods)].Endpoint); r.Err != nil {
			return nil, fmt.Errorf("%s does not reach %s: %w", r.From, r.To, r.Err)
		}
	}
	streaming, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	reports, errs := make([]lab.StreamReport, len(pods)), make([]error, len(pods))
	for i, p := range pods {
		all.Go(func() {
			reports[i], errs[i] = f.lab.Stream(streaming, p.Endpoint, pods[(i+1)%len(pods)].Endpoint, fleetSends)
		})
	}
	return func() error {
		cancel()
		all.Wait()
		sent, lost := 0, 0
		for _, r := range reports {
			sent, lost = sent+r.Sent, lost+r.Lost
		}
		f.bench.report.add(Figure{Name: "FleetLost", What: fmt.Sprintf("of %d datagrams between pods meanwhile, lost", sent), Unit: "datagrams",
			Value: float64(lost), Limit: atMost(0)})
		return errors.Join(errs...)
	}, nil
}
