package bench

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// restarts stops a daemon and starts it again: all is in the kernel as it should be.
func restarts(ctx context.Context, b *bench) error {
	const leases = 5000
	c, err := b.cluster(ctx, leases, ipv4())
	if err != nil {
		return err
	}
	for _, p := range b.programs() {
		var ready, changes []float64
		what := map[string]int{}
		_, err := b.start(ctx, p, c, settle, func(n *node, d *daemon) error {
			for range 2 * b.Rounds {
				d.end()
				n.listen.count()
				d, err = n.start(p, c.arguments())
				if err != nil {
					return err
				}
				at, err := d.awaitReady(ctx)
				if err == nil && !pause(ctx, settle) {
					err = ctx.Err()
				}
				if err != nil {
					d.end()
					return err
				}
				ready = append(ready, milliseconds(at.Sub(d.began)))
				changed := 0
				for typ, count := range n.listen.count() {
					what[typeName(typ)] += count
					changed += count
				}
				changes = append(changes, float64(changed))
			}
			d.end()
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		// Of changes it is the worst.
		worst := quantile(1, changes)
		if p.isPeer() {
			b.report.peer("Restart/leases=5000", p.name, ready, 0)
			b.report.peer("RestartChanges/leases=5000", p.name, changes, worst)
			continue
		}
		b.report.add(Figure{Name: "Restart/leases=5000", What: "5000 leases: restart until ready, all in sync", Unit: "ms", Samples: ready, Limit: atMost(150)})
		b.report.add(Figure{Name: "RestartChanges/leases=5000", What: "5000 leases: changes in the kernel by a restart, at worst", Unit: "changes", Samples: changes, Value: worst, Limit: atMost(0)})
		if worst > 0 {
			b.report.note("what the kernel told of restarts of %s: %v", p.name, what)
		}
	}
	return nil
}

// typeName names the types of messages that are listened to.
func typeName(typ uint16) string {
	name, ok := map[uint16]string{
		unix.RTM_NEWLINK: "link set", unix.RTM_DELLINK: "link deleted", unix.RTM_NEWADDR: "address set", unix.RTM_DELADDR: "address deleted",
		unix.RTM_NEWROUTE: "route set", unix.RTM_DELROUTE: "route deleted", unix.RTM_NEWNEIGH: "neighbour or FDB entry set",
		unix.RTM_DELNEIGH: "neighbour or FDB entry deleted", unix.RTM_NEWNEXTHOP: "nexthop set", unix.RTM_DELNEXTHOP: "nexthop deleted",
	}[typ]
	if !ok {
		return fmt.Sprint("message ", typ)
	}
	return name
}
