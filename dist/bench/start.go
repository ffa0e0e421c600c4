package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// store is where a daemon finds the leases of nodes that do not exist.
type store interface {
	// join prepares a node, and returns the arguments and the environment with which its daemon uses the store.
	join(ctx context.Context, n *node) (args, environment []string, err error)
	// leave removes what nodes that do exist have left there.
	leave(ctx context.Context) error
	// requests are those that the store has received, by method. A stream counts once.
	requests(ctx context.Context) (map[string]float64, error)
	// entries are what the kernel has to hold for all leases.
	entries() map[entry]network.MAC
}

// started is what one start cost.
type started struct {
	inPlace  time.Duration // from exec until all entries were in the kernel
	ready    time.Duration // until the daemon said so
	own      time.Duration // CPU of the daemon
	programs time.Duration // CPU of the programs it ran
	requests float64       // to the store
	by       map[string]float64
	received float64 // bytes, by the node's uplink
	memory   memory
}

// settle is how long after a start CPU and memory are read: what a start leaves to be done in the background counts too.
const settle = time.Second

// start runs a daemon on a new node until all is in place, and a while longer. then, if not nil, goes on with the node.
func (b *bench) start(
	ctx context.Context, p program, c store, wait time.Duration, then func(*node, *daemon) error,
) (s started, err error) {
	n, err := b.node()
	if err != nil {
		return s, err
	}
	defer func() { _ = n.close() }()
	args, environment, err := c.join(ctx, n)
	if err != nil {
		return s, err
	}
	before, err := c.requests(ctx)
	if err != nil {
		return s, err
	}
	received, err := n.received()
	if err != nil {
		return s, err
	}
	complete := n.listen.expect(c.entries())
	d, err := n.start(p, args, environment...)
	if err != nil {
		return s, err
	}
	defer d.end()
	at, err := d.await(ctx, complete, n.listen.missing)
	if err != nil {
		return s, err
	}
	s.inPlace = at.Sub(d.began)
	if at, err = d.awaitReady(ctx); err != nil {
		return s, err
	}
	s.ready = at.Sub(d.began)
	if !pause(ctx, wait) {
		return s, ctx.Err()
	}
	after, err := c.requests(ctx)
	if err != nil {
		return s, err
	}
	s.by, s.requests = since(before, after)
	end, err := n.received()
	if err != nil {
		return s, err
	}
	s.received = end - received
	if s.own, s.programs, err = d.cpu(); err != nil {
		return s, err
	}
	if s.memory, err = d.memory(); err != nil {
		return s, err
	}
	if then != nil {
		if err := then(n, d); err != nil {
			return s, err
		}
	}
	d.end()
	return s, c.leave(ctx)
}

// floors are iproute2's times for the same entries.
type floors struct{ nexthops, plain []float64 }

// manyPlain is from where on plain routes are measured only once: each takes time in proportion to how many there are.
const manyPlain = 10_000

// floor is the faster way.
func (f floors) floor() *Reference {
	by := Reference{What: "iproute2, nexthop objects", Samples: f.nexthops, Value: median(f.nexthops)}
	if plain := median(f.plain); len(f.plain) > 0 && plain < by.Value {
		by = Reference{What: "iproute2, plain routes", Samples: f.plain, Value: plain}
	}
	return &by
}

func (b *bench) floors(ctx context.Context, f *floors, leases int, families []subnet.Family) error {
	for _, nexthops := range []bool{true, false} {
		if !nexthops && leases > manyPlain && len(f.plain) > 0 {
			continue // it takes ten seconds and more, and once is enough to see that
		}
		took, err := b.iproute2(ctx, leases, families, nexthops)
		if err != nil {
			return err
		}
		if nexthops {
			f.nexthops = append(f.nexthops, milliseconds(took))
		} else {
			f.plain = append(f.plain, milliseconds(took))
		}
	}
	return nil
}

func starts(ctx context.Context, b *bench) error {
	for _, size := range []struct {
		leases   int
		families []subnet.Family
		stack    string
		factor   float64
		cpu      *float64 // limit, ms
	}{{5000, ipv4(), "IPv4", 1.6, atMost(500)}, {10_000, dual(), "dual stack", 3, nil}} {
		c, err := b.cluster(ctx, size.leases, size.families)
		if err != nil {
			return err
		}
		var floor floors
		inPlace, ready, cpu, programs := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		requests := map[string][]float64{}
		by := map[string]float64{}
		for range b.Rounds {
			if err := b.floors(ctx, &floor, size.leases, size.families); err != nil {
				return err
			}
			for _, p := range b.programs() {
				s, err := b.start(ctx, p, c, settle, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				inPlace[p.name] = append(inPlace[p.name], milliseconds(s.inPlace))
				ready[p.name] = append(ready[p.name], milliseconds(s.ready))
				cpu[p.name] = append(cpu[p.name], milliseconds(s.own+s.programs))
				programs[p.name] = append(programs[p.name], milliseconds(s.programs))
				requests[p.name] = append(requests[p.name], s.requests)
				if !p.isPeer() {
					by = s.by
				}
			}
		}
		of := fmt.Sprintf("leases=%d/stack=%d", size.leases, len(size.families))
		words := fmt.Sprintf("%d leases %s", size.leases, size.stack)
		f := floor.floor()
		for _, p := range b.programs() {
			if p.isPeer() {
				b.report.peer("Start/"+of, p.name, inPlace[p.name], 0)
				b.report.peer("StartReady/"+of, p.name, ready[p.name], 0)
				b.report.peer("StartCPU/"+of, p.name, cpu[p.name], 0)
				b.report.peer("StartRequests/"+of, p.name, requests[p.name], 0)
				continue
			}
			b.report.add(Figure{Name: "Start/" + of, What: words + ": start until all is in the kernel", Unit: "ms", Samples: inPlace[p.name],
				Floor: f, Limit: atMost(size.factor * f.Value), LimitIs: fmt.Sprintf("%g × floor", size.factor)})
			b.report.add(Figure{Name: "StartReady/" + of, What: words + ": until ready", Unit: "ms", Samples: ready[p.name]})
			b.report.add(Figure{Name: "StartCPU/" + of, What: words + ": CPU of a start", Unit: "ms", Samples: cpu[p.name], Limit: size.cpu})
			b.report.add(Figure{Name: "StartPrograms/" + of, What: words + ": of it, programs run", Unit: "ms", Samples: programs[p.name]})
			b.report.add(Figure{Name: "StartRequests/" + of, What: words + ": requests to etcd", Unit: "requests", Samples: requests[p.name],
				Limit: atMost(6 + float64(size.leases)/1000), LimitIs: "6 + N/1000"})
		}
		b.report.note("%s: iproute2 takes %s ms with nexthop objects, %s ms with plain routes; requests to etcd: %v", words, number(median(floor.nexthops)), number(median(floor.plain)), by)
	}
	return nil
}

// sizes measures the picture's points.
func sizes(ctx context.Context, b *bench) error {
	for _, leases := range b.Sizes {
		c, err := b.cluster(ctx, leases, ipv4())
		if err != nil {
			return err
		}
		var floor floors
		var all, peer []started
		for range min(3, b.Rounds) {
			if err := b.floors(ctx, &floor, leases, ipv4()); err != nil {
				return err
			}
			for _, p := range b.programs() {
				s, err := b.start(ctx, p, c, settle, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				if p.isPeer() {
					peer = append(peer, s)
				} else {
					all = append(all, s)
				}
			}
		}
		of := func(all []started, what func(started) float64) float64 {
			var values []float64
			for _, s := range all {
				values = append(values, what(s))
			}
			return median(values)
		}
		inPlace := func(s started) float64 { return milliseconds(s.inPlace) }
		resident := func(s started) float64 { return s.memory.Resident / 1e6 }
		b.report.Points = append(b.report.Points, Point{
			Leases: leases, Start: of(all, inPlace), Resident: of(all, resident), Floor: floor.floor().Value, Plain: median(floor.plain),
			CPU:      of(all, func(s started) float64 { return milliseconds(s.own + s.programs) }),
			Requests: of(all, func(s started) float64 { return s.requests }),
			Peer:     of(peer, inPlace), PeerRSS: of(peer, resident),
		})
		p := b.report.Points[len(b.report.Points)-1]
		if most := neighbourLimit(); leases > most && most > 0 {
			b.report.note("%d permanent neighbours fit where gc_thresh3 is %d: the kernel does not count them", leases, most)
		}
		b.step("  %6d leases: %s ms, iproute2 %s ms (plain routes %s), CPU %s ms, %s MB, %s requests", leases, number(p.Start), number(p.Floor), number(p.Plain), number(p.CPU), number(p.Resident), number(p.Requests))
	}
	return nil
}

// neighbourLimit is gc_thresh3, which holds for all namespaces of the machine together; 0 if it is not known.
func neighbourLimit() int {
	out, _ := exec.Command("ip", "ntable", "show", "name", "arp_cache").Output() // in a namespace /proc/sys does not have it
	_, after, _ := strings.Cut(string(out), "thresh3 ")
	limit, _, _ := strings.Cut(after, " ")
	n, _ := strconv.Atoi(limit) // 0 for what is no number
	return n
}
