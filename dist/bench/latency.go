package bench

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/network"
)

// heardEvent is one that a bare watch has heard.
type heardEvent struct {
	key string
	at  time.Time
}

// watch is a bare watch on a prefix, which does nothing but note the time.
func (b *bench) watch(ctx context.Context, prefix string) <-chan heardEvent {
	heard := make(chan heardEvent, 1<<14)
	created := make(chan struct{})
	go func() {
		for resp := range b.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
			now := time.Now()
			if resp.Created {
				close(created)
			}
			for _, e := range resp.Events {
				heard <- heardEvent{string(e.Kv.Key), now}
			}
		}
	}()
	select {
	case <-created:
	case <-ctx.Done():
	}
	return heard
}

// between is how long it is left alone between two changes: nodes do not come and go in step.
const between = 3 * time.Millisecond

func latencies(ctx context.Context, b *bench) error {
	for _, leases := range []int{few, many} {
		if err := b.latency(ctx, leases); err != nil {
			return err
		}
	}
	return nil
}

// latency changes one lease after the other, and in turns with that, as its floor, a key that only a bare watch
// hears of.
func (b *bench) latency(ctx context.Context, leases int) error {
	c, err := b.cluster(ctx, leases, ipv4())
	if err != nil {
		return err
	}
	floor := newFloor(ctx, b, leases)
	defer floor.end()
	changes := []string{"added", "changed", "removed"}
	for _, p := range b.programs("--peer-grace=0s") {
		took := map[string][]float64{}
		_, err := b.start(ctx, p, c, settle, func(n *node, d *daemon) error {
			for i := range b.Changes {
				index := leases + i%1000
				for _, change := range changes {
					t, err := c.change(ctx, n, d, index, change)
					if err != nil {
						return fmt.Errorf("lease %s: %w", change, err)
					}
					took[change] = append(took[change], milliseconds(t))
					if !pause(ctx, between) {
						return ctx.Err()
					}
				}
				if p.isPeer() {
					continue
				}
				if err := floor.sample(ctx, index, byte(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, change := range changes {
			for _, q := range []struct {
				name  string
				p     float64
				limit float64
			}{{"p50", 0.5, 1.5}, {"p99", 0.99, 5}} {
				name := fmt.Sprintf("Latency/change=%s/leases=%d/%s", change, leases, q.name)
				value := quantile(q.p, took[change])
				if p.isPeer() {
					b.report.peer(name, p.name, []float64{value}, value)
					continue
				}
				b.report.add(Figure{Name: name, What: fmt.Sprintf("%d leases: one %s, etcd's answer to kernel, %s", leases, change, q.name), Unit: "ms", Value: value,
					Limit: atMost(q.limit), Floor: &Reference{What: "bare watch, then the same messages", Value: quantile(q.p, floor.both)}})
			}
		}
	}
	b.report.note("%d leases: a bare watch hears of a change %s ms after etcd's answer (p50; p99 %s), the messages for one lease take the kernel %s ms (p99 %s)", leases,
		number(quantile(0.5, floor.watch)), number(quantile(0.99, floor.watch)), number(quantile(0.5, floor.kernel)), number(quantile(0.99, floor.kernel)))
	return nil
}

// floor measures what the least is that a change of one lease takes on this machine: a watch that does nothing but note the
// time, and the same messages to the kernel, in a namespace where nothing else happens.
type floor struct {
	cluster             *cluster // which no daemon watches
	heard               <-chan heardEvent
	alone               *apart
	end                 func()
	watch, kernel, both []float64 // ms
}

func newFloor(ctx context.Context, b *bench, leases int) *floor {
	ctx, end := context.WithCancel(ctx)
	alone := newApart()
	f := &floor{end: func() { end(); alone.close() }, alone: alone, cluster: &cluster{client: b.client, prefix: fmt.Sprintf("/floor/%d", leases), families: ipv4()}}
	f.heard = b.watch(ctx, f.cluster.prefix)
	return f
}

// sample takes one.
func (f *floor) sample(ctx context.Context, index int, version byte) error {
	if err := f.cluster.put(ctx, index, index+1, version); err != nil {
		return err
	}
	acknowledged := time.Now()
	var heard float64
	select {
	case e := <-f.heard:
		heard = milliseconds(e.at.Sub(acknowledged))
	case <-ctx.Done():
		return ctx.Err()
	}
	took, err := f.alone.come(index, index+1)
	if err != nil {
		return err
	}
	f.watch = append(f.watch, heard)
	f.kernel = append(f.kernel, milliseconds(took))
	f.both = append(f.both, heard+milliseconds(took))
	if !pause(ctx, between) {
		return ctx.Err()
	}
	return nil
}

// change makes one change to a lease, and returns how long after etcd's answer the kernel had all of it.
func (c *cluster) change(ctx context.Context, n *node, d *daemon, index int, change string) (time.Duration, error) {
	var complete <-chan time.Time
	var err error
	switch change {
	case "added":
		complete = n.listen.expect(entries(index, index+1, c.families, 0))
		err = c.put(ctx, index, index+1, 0)
	case "changed":
		complete = n.listen.expect(entries(index, index+1, c.families, 1))
		err = c.put(ctx, index, index+1, 1)
	case "removed":
		var gone []entry
		for e := range entries(index, index+1, c.families, 1) {
			gone = append(gone, e)
		}
		complete = n.listen.expect(map[entry]network.MAC{}, gone...)
		err = c.remove(ctx, index, index+1)
	}
	acknowledged := time.Now()
	if err != nil {
		return 0, err
	}
	at, err := d.await(ctx, complete, n.listen.missing)
	return at.Sub(acknowledged), err
}

func bulks(ctx context.Context, b *bench) error {
	kernelAlone := newApart()
	defer kernelAlone.close()
	c, err := b.cluster(ctx, many, ipv4())
	if err != nil {
		return err
	}
	for _, p := range b.programs("--peer-grace=0s") {
		_, err := b.start(ctx, p, c, settle, func(n *node, d *daemon) error {
			for _, size := range []struct {
				leases int
				limit  float64
			}{{200, 25}, {1000, 100}} {
				var took, alone []float64
				for range 3 * b.Rounds {
					complete := n.listen.expect(entries(many, many+size.leases, c.families, 0))
					if err := c.put(ctx, many, many+size.leases, 0); err != nil {
						return err
					}
					acknowledged := time.Now()
					at, err := d.await(ctx, complete, n.listen.missing)
					if err != nil {
						return err
					}
					took = append(took, milliseconds(at.Sub(acknowledged)))
					var gone []entry
					for e := range entries(many, many+size.leases, c.families, 0) {
						gone = append(gone, e)
					}
					complete = n.listen.expect(map[entry]network.MAC{}, gone...)
					if err := c.remove(ctx, many, many+size.leases); err != nil {
						return err
					}
					if _, err := d.await(ctx, complete, n.listen.missing); err != nil {
						return err
					}
					if !pause(ctx, 100*time.Millisecond) {
						return ctx.Err()
					}
					if p.isPeer() {
						continue
					}
					t, err := kernelAlone.come(many, many+size.leases)
					if err != nil {
						return err
					}
					alone = append(alone, milliseconds(t))
				}
				name := fmt.Sprintf("Bulk/added=%d/leases=%d", size.leases, many)
				if p.isPeer() {
					b.report.peer(name, p.name, took, 0)
					continue
				}
				b.report.add(Figure{Name: name, What: fmt.Sprintf("%d leases: %d more at once", many, size.leases), Unit: "ms", Samples: took, Limit: atMost(size.limit),
					Floor: &Reference{What: "the netlink messages alone", Value: median(alone), Samples: alone}})
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
