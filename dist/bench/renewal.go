package bench

import (
	"context"
	"fmt"
	"time"
)

// renewals has a daemon renew a short lease a few times, and counts what a watch on all of the cluster's keys hears.
func renewals(ctx context.Context, b *bench) error {
	const ttl, enough = 6 * time.Second, 3
	c, err := b.cluster(ctx, few, ipv4())
	if err != nil {
		return err
	}
	p := b.programs()[0] // flannel writes the key anew, and has no flag that shortens its lease
	p.args = []string{"--subnet-lease-ttl=" + ttl.String()}
	events, renewed := 0, 0.0
	_, err = b.start(ctx, p, c, settle, func(*node, *daemon) error {
		watch, end := context.WithCancel(ctx)
		defer end()
		heard := b.watch(watch, c.prefix)
		before, err := b.keepAlives(ctx)
		if err != nil {
			return err
		}
		for began := time.Now(); renewed < enough; {
			if time.Since(began) > patience {
				return fmt.Errorf("only %g renewals in %s", renewed, patience)
			}
			if !pause(ctx, 200*time.Millisecond) {
				return ctx.Err()
			}
			now, err := b.keepAlives(ctx)
			if err != nil {
				return err
			}
			renewed = now - before
		}
		// A change of the benchmark's own comes after all that the renewals may have caused.
		if _, err := b.client.Put(ctx, c.prefix+"/end", ""); err != nil {
			return err
		}
		for {
			select {
			case e := <-heard:
				if e.key == c.prefix+"/end" {
					return nil
				}
				events++
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		return err
	}
	b.report.add(Figure{Name: "RenewalEvents", What: fmt.Sprintf("events at other nodes, of %g renewals", renewed), Unit: "events", Value: float64(events), Limit: atMost(0)})
	return nil
}

// keepAlives is how many renewals etcd was sent.
func (b *bench) keepAlives(ctx context.Context) (float64, error) {
	all, err := metrics(ctx, b.etcd.Endpoint())
	if err != nil {
		return 0, err
	}
	return counters(all, "grpc_server_msg_received_total", "grpc_method")["LeaseKeepAlive"], nil
}
