package bench

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
)

// Limits of [Options].
const (
	MaxPathFlows = 40000 // of 65,536 connections that the fast path has room for
	MaxPathPods  = 200   // of a /24
)

// fastSamples are those of throughput, CPU and round trips, see way.measure.
type fastSamples struct{ off, on, underlay samples }

// switchFast has the last two nodes use the fast path, and waits until they do.
func (p *dataPath) switchFast(ctx context.Context) error {
	fast := p.lab.Nodes()[2:]
	for _, n := range fast {
		n.SetDaemonArgs("--iface", uplink, "--fast-path=on")
		if err := n.Restart(ctx); err != nil {
			return err
		}
	}
	return p.awaitFast(ctx, 1)
}

// awaitFast waits until the ports of so many pods on the last node use the fast path, and one of the node before.
func (p *dataPath) awaitFast(ctx context.Context, pods int) error {
	for i, n := range p.lab.Nodes()[2:] {
		ports := 1
		if i == 1 {
			ports = pods
		}
		for {
			s, err := n.Status(ctx)
			if f := s.FastPath; err == nil && f != nil && f.InUse && f.Ports >= ports && f.Peers > 0 {
				break
			}
			if !pause(ctx, 50*time.Millisecond) {
				return fmt.Errorf("%s: no fast path of %d pods: %w: %+v, %v", n.Name(), ports, ctx.Err(),
					s.FastPath, err)
			}
		}
	}
	return nil
}

// fastMetric is something that one thread measures of ways in turns, and its targets.
type fastMetric struct {
	name, what string
	run        func([]way, time.Duration) ([][]float64, error)
	// rate: the figure is how much is done in a time, and not how long it takes.
	rate bool
	// Targets for the ratio to node to node, by underlay; 0: none.
	wire, whole float64
	// Targets for the ratio to the fast path off: in every case, and with the rules of kube-proxy; 0: none.
	off, offKube float64
}

func fastMetrics() []fastMetric {
	return []fastMetric{
		{name: "UDP", what: "UDP, 1,350 bytes", run: oneWay, rate: true, wire: 0.85, whole: 0.90, offKube: 1.6},
		{name: "RoundTripTCP", what: "TCP there and back", run: segments, wire: 1.10, whole: 1.10, offKube: 0.72},
		{name: "RoundTripUDP", what: "UDP there and back", run: datagrams},
		{name: "TCP", what: "TCP, one flow", run: transfers, rate: true, wire: 0.95, whole: 0.75}, // see datapath.md
		{name: "Short", what: "TCP connections with a message there and back", run: shortOnes, rate: true, off: 0.95},
		{name: "Connect", what: "TCP connections without data", run: connects, rate: true},
	}
}

// ratio is that of a figure to another, from how long both took.
func (m fastMetric) ratio(took, other []float64) float64 {
	if m.rate {
		return median(other) / median(took)
	}
	return median(took) / median(other)
}

// fastPath measures with the fast path off and on what path does not: the way alone, by one thread, and what is
// special to the fast path.
func (b *bench) fastPath(ctx context.Context, c pathCase, p *dataPath, two *fastSamples) error {
	for _, m := range fastMetrics() {
		took, err := b.turns(ctx, m, []way{p.underlay, p.pods, p.fast})
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		off, on, gain := m.ratios(took, 1, 0), m.ratios(took, 2, 0), m.ratios(took, 2, 1)
		target := m.whole
		if c.wire {
			target = m.wire
		}
		if c.services > 0 {
			target = 0
		}
		what := c.what + ": " + m.what
		b.report.addRatios(m.name+"/"+c.name, what+ofNodes, on, off, m.rate, target)
		target = m.off
		if c.services > 0 && m.offKube > 0 {
			target = m.offKube
		}
		b.report.addRatios(m.name+"Gain/"+c.name, what+ofOff, gain, nil, m.rate, target)
		b.step("    %s: node to node %s µs, off %s ×, on %s ×, on to off %s ×", m.what, number(median(took[0][0])),
			number(median(off)), number(median(on)), number(median(gain)))
	}
	b.fastCPU(c, two)
	if err := b.special(ctx, c, p); err != nil {
		return err
	}
	return b.fastCounters(ctx, c, p)
}

// turns measures ways round by round: what each call took, by way and round.
func (b *bench) turns(ctx context.Context, m fastMetric, ways []way) ([][][]float64, error) {
	took := make([][][]float64, len(ways))
	for range b.Rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		round, err := m.run(ways, b.PathTurn)
		if err != nil {
			return nil, err
		}
		for i := range ways {
			took[i] = append(took[i], round[i])
		}
	}
	return took, nil
}

// ratios are those of a way to another, round by round.
func (m fastMetric) ratios(took [][][]float64, way, other int) (all []float64) {
	for round := range took[way] {
		all = append(all, m.ratio(took[way][round], took[other][round]))
	}
	return all
}

// fastCPU reports the CPU time of one TCP flow between two processors.
func (b *bench) fastCPU(c pathCase, s *fastSamples) {
	for _, m := range s.on.order {
		if !strings.HasPrefix(m.name, "PathCPU/proto=tcp/flows=1") {
			continue
		}
		on, off := inTurns("", s.on.of[m], s.underlay.of[m]), inTurns("", s.off.of[m], s.underlay.of[m])
		target := 0.0
		if c.wire && c.services == 0 {
			target = 1.05
		}
		b.report.addRatios("CPU/"+c.name, c.what+": TCP, one flow, CPU for a GB"+ofNodes, on.Ratios, off.Ratios,
			false, target)
	}
}

// special measures what is special to the fast path.
func (b *bench) special(ctx context.Context, c pathCase, p *dataPath) error {
	if c.services > 0 {
		if err := b.services(ctx, c, p); err != nil {
			return fmt.Errorf("services: %w", err)
		}
		return nil
	}
	if err := b.nested(ctx, c, p); err != nil {
		return fmt.Errorf("a bridge in a pod: %w", err)
	}
	if c.wire {
		return nil
	}
	if err := b.fastRest(ctx, p); err != nil {
		return err
	}
	if err := b.manyFlows(ctx, c, p); err != nil {
		return fmt.Errorf("%d flows: %w", b.PathFlows, err)
	}
	if err := b.manyPods(ctx, c, p); err != nil {
		return fmt.Errorf("%d pods: %w", b.PathPods, err)
	}
	return nil
}

// services compares connections to a Service with those to its pod, with the fast path.
func (b *bench) services(ctx context.Context, c pathCase, p *dataPath) error {
	off, on := p.pods, p.fast
	off.name, off.via, off.port = "Service", servicePort(0), servedPort
	on.name, on.via, on.port = "Service, fast path", servicePort(1), servedPort
	for _, m := range fastMetrics() {
		if m.name == "Connect" || m.name == "Short" {
			continue // a new connection is translated by the slow path
		}
		took, err := b.turns(ctx, m, []way{p.pods, p.fast, off, on})
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		target := 1.05
		if m.rate {
			target = 0.95
		}
		b.report.addRatios("Service"+m.name+"/"+c.name, c.what+": "+m.what+", a Service to its pod",
			m.ratios(took, 3, 1), m.ratios(took, 2, 0), m.rate, target)
	}
	return nil
}

// nested compares TCP to a container in a pod, which the pod forwards to over a bridge of its own, as with Docker in a
// pod.
func (b *bench) nested(ctx context.Context, c pathCase, p *dataPath) error {
	ways := []way{p.pods, p.fast}
	for i, pod := range p.receivers {
		inner, err := p.addNested(pod)
		if err != nil {
			return err
		}
		ways[i].to, ways[i].via = inner, netip.AddrPortFrom(ways[i].to.addr, publishedPort)
	}
	m := fastMetric{what: "TCP, one flow", run: transfers, rate: true}
	took, err := b.turns(ctx, m, ways)
	if err != nil {
		return err
	}
	b.report.addRatios("Nested/"+c.name, c.what+": "+m.what+" to a bridge in a pod"+ofOff, m.ratios(took, 1, 0), nil,
		true, 1)
	return nil
}

// burst is how many datagrams go there and back on a flow before another has its turn.
const burst = 10

// manyFlows compares many flows of UDP between two pods.
func (b *bench) manyFlows(ctx context.Context, c pathCase, p *dataPath) error {
	const sockets = 100 // at the far end; each flow is from one socket to another
	m := fastMetric{what: fmt.Sprintf("%d flows", b.PathFlows)}
	m.run = func(ways []way, d time.Duration) ([][]float64, error) {
		return grids(ways, (b.PathFlows+sockets-1)/sockets, sockets, d)
	}
	took, err := b.turns(ctx, m, []way{p.pods, p.fast})
	if err != nil {
		return err
	}
	b.report.addRatios("Flows/"+c.name, c.what+": "+m.what+", UDP there and back"+ofOff, m.ratios(took, 1, 0), nil,
		false, 1)
	return nil
}

// manyPods compares flows of UDP to many pods of a node.
func (b *bench) manyPods(ctx context.Context, c pathCase, p *dataPath) error {
	to := make([][]end, len(p.receivers))
	for i, first := range p.receivers {
		to[i] = []end{{first.Do, first.Addr(c.family)}}
		for len(to[i]) < b.PathPods {
			pod, err := p.lab.AddPod(ctx, first.Node, "")
			if err != nil {
				return err
			}
			to[i] = append(to[i], end{pod.Do, pod.Addr(c.family)})
		}
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.awaitFast(waiting, b.PathPods); err != nil {
		return err
	}
	m := fastMetric{what: fmt.Sprintf("%d pods", b.PathPods)}
	m.run = func(ways []way, d time.Duration) ([][]float64, error) {
		all := make([][]pair, len(ways))
		defer func() {
			for _, p := range slices.Concat(all...) {
				p.close()
			}
		}()
		for i, w := range ways {
			for _, far := range to[i] {
				one, _, err := flows([]way{{name: w.name, from: w.from, to: far}})
				if err != nil {
					return nil, err
				}
				all[i] = append(all[i], one[0])
			}
		}
		next := make([]int, len(ways))
		return inTurn(ways, d, b.PathPods, func(i int) error {
			next[i]++
			return all[i][next[i]%len(all[i])].burst()
		})
	}
	took, err := b.turns(ctx, m, []way{p.pods, p.fast})
	if err != nil {
		return err
	}
	b.report.addRatios("Pods/"+c.name, c.what+": "+m.what+", UDP there and back"+ofOff, m.ratios(took, 1, 0), nil,
		false, 1)
	return nil
}

// burst sends datagrams there and back.
func (p pair) burst() error {
	var message [messageSize]byte
	for range burst {
		if err := p.exchange(message[:]); err != nil {
			return err
		}
	}
	return nil
}

// fastRest reports the CPU time of daemons at rest.
func (b *bench) fastRest(ctx context.Context, p *dataPath) error {
	nodes := []*lab.Node{p.lab.Nodes()[0], p.lab.Nodes()[2]}
	var used [2]float64
	for _, sign := range []float64{-1, 1} {
		for i, n := range nodes {
			t, err := processCPU(n.PID())
			if err != nil {
				return fmt.Errorf("%s: CPU time of the daemon: %w", n.Name(), err)
			}
			used[i] += sign * milliseconds(t)
		}
		if sign < 0 && !pause(ctx, b.PathRest) {
			return ctx.Err()
		}
	}
	perMinute := time.Minute.Seconds() / b.PathRest.Seconds()
	b.report.add(Figure{Name: fastFigure + "Rest", What: "the daemon at rest: CPU", Unit: "ms/min",
		Value: used[1] * perMinute, Off: &Reference{What: "off", Value: used[0] * perMinute}})
	return nil
}

// processCPU is what a process has used, of all its threads: clock_getcpuclockid(3), in nanoseconds.
func processCPU(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED, in the kernel's include/linux/posix-timers_types.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
