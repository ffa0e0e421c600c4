package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

const (
	fleetPatience = 3 * time.Minute
	// fleetSends is how often each pod sends to that on the next node.
	fleetSends = 20 * time.Millisecond
	// fleetChanges is how often a lease is changed.
	fleetChanges = 20
)

// member is a node of the fleet, with somebody who listens to its kernel.
type member struct {
	*lab.Node
	listen *listener
	stop   chan struct{}
}

// fleet is a lab of many nodes among more leases still.
type fleet struct {
	bench   *bench
	lab     *lab.Lab
	members []*member
	absent  *cluster
	etcd    *etcdserver.Server // to be read only
	asked   float64            // requests of the fleet's own to list leases
}

// fleets is the part.
func fleets(ctx context.Context, b *bench) (err error) {
	before := machineMemory()
	l, err := lab.New(ctx, lab.Options{Nodes: b.FleetNodes, Bin: b.Bin, Config: "-", DaemonArgs: []string{"--peer-grace=0s"}})
	if err != nil {
		return err
	}
	f := &fleet{bench: b, lab: l}
	defer func() { err = errors.Join(err, f.close()) }()
	_ = l.Etcd().Member(0, func(s *etcdserver.Server) error { f.etcd = s; return nil })
	for _, n := range l.Nodes() {
		n.Kill() // all are to start at the same time
		m := &member{Node: n, stop: make(chan struct{})}
		if err := n.Do(func() (err error) { m.listen, err = listen(); return err }); err != nil {
			return err
		}
		go m.listen.run(m.stop)
		f.members = append(f.members, m)
	}
	if err := l.Etcd().PutConfig(ctx, config(ipv4())); err != nil {
		return err
	}
	f.absent = &cluster{client: l.Etcd().Client(), prefix: etcd.DefaultPrefix, families: ipv4(), leases: b.FleetLeases}
	const together = 100 // etcd takes 128 operations in a transaction
	for from := 0; from < b.FleetLeases; from += together {
		if err := f.absent.put(ctx, from, min(b.FleetLeases, from+together), 0); err != nil {
			return err
		}
	}
	if err := f.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	b.report.note("fleet: %s", before.since(machineMemory()))
	streams, err := f.stream(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(f.changes(ctx), f.killed(ctx), f.etcdRestarts(ctx))
	return errors.Join(err, streams(), f.check(ctx))
}

func (f *fleet) close() error {
	var err error
	for _, m := range f.members {
		close(m.stop)
		<-m.listen.done
		unix.Close(m.listen.from.fd)
		err = errors.Join(err, f.bench.keep(m.LogPath()))
	}
	return errors.Join(err, f.lab.Close())
}

// each calls fn for all nodes at once.
func (f *fleet) each(fn func(*member) error) error {
	errs := make([]error, len(f.members))
	var all sync.WaitGroup
	for i, m := range f.members {
		all.Go(func() {
			if err := fn(m); err != nil {
				errs[i] = fmt.Errorf("%s: %w", m.Name(), err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// wanted is what a node's kernel has to hold: what leads to all others.
func (f *fleet) wanted(leases []subnet.Lease, self string) (map[entry]network.MAC, error) {
	all := make(map[entry]network.MAC, 3*len(leases))
	for _, l := range leases {
		if l.NodeName == self {
			continue
		}
		if err := addEntries(all, l); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// leases waits until all nodes have one.
func (f *fleet) leases(ctx context.Context) ([]subnet.Lease, error) {
	for {
		f.asked++
		count, err := f.absent.client.Get(ctx, f.absent.prefix+"/subnets/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return nil, err
		}
		if int(count.Count) >= len(f.members)+f.bench.FleetLeases {
			f.asked++
			return f.lab.Etcd().Leases(ctx)
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, fmt.Errorf("%d leases, want %d: %w", count.Count, len(f.members)+f.bench.FleetLeases, ctx.Err())
		}
	}
}

// await waits for a time to come.
func (m *member) await(ctx context.Context, c <-chan time.Time) (time.Time, error) {
	select {
	case t := <-c:
		return t, nil
	case <-ctx.Done():
		return time.Time{}, errors.Join(ctx.Err(), m.listen.missing())
	}
}
