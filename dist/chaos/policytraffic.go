package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// PolicyTraffic is what came of connections between pods that network policies allow or deny, while a fault was done.
type PolicyTraffic struct {
	Denied, Passed int
	Passing        time.Duration // from the fault to the last denied packet that passed; 0: none did
	Allowed, Lost  int
	Losing         time.Duration // from the fault to the last allowed packet that was lost; 0: none was
}

func (p PolicyTraffic) String() string {
	return fmt.Sprintf("denied: %d sent, %d passed, for %s; allowed: %d sent, %d lost, for %s",
		p.Denied, p.Passed, short(p.Passing), p.Allowed, p.Lost, short(p.Losing))
}

// add takes in another fault.
func (p *PolicyTraffic) add(x PolicyTraffic) {
	p.Denied, p.Passed, p.Passing = p.Denied+x.Denied, p.Passed+x.Passed, max(p.Passing, x.Passing)
	p.Allowed, p.Lost, p.Losing = p.Allowed+x.Allowed, p.Lost+x.Lost, max(p.Losing, x.Losing)
}

// policyStream is the traffic of all pairs that a host judges.
type policyStream struct {
	suite  *Suite
	tracks []*track // of single packets
	bulks  []*bulk
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	errs     []error
	finished bool
}

// senders returns the flows of all pairs by who sends. Denied pairs also send over connections that passed because of a
// fault.
func (p *policyStream) senders(h *host) (map[*lab.Pod][]flow, error) {
	all, flows := &p.suite.tracks, map[*lab.Pod][]flow{}
	for _, x := range p.suite.pairs(h) {
		for _, f := range p.suite.families {
			single := func() *track {
				t := all.add(x, f)
				p.tracks = append(p.tracks, t)
				return t
			}
			add := func(f flow, err error) error {
				if err == nil {
					flows[x.from] = append(flows[x.from], f)
				}
				return err
			}
			last := func() closing { return closing{track: all.add(x, f)} }
			if err := add(&datagrams{single(), last()}, nil); err != nil || x.as != nil {
				continue // answers to a borrowed address come to another pod
			}
			err := x.from.Do(func() error {
				err := add(newSession(single(), all.add(x, f)))
				if err != nil || !x.allowed {
					return err
				}
				b, err := newBulk(all.add(x, f))
				if err == nil {
					p.bulks = append(p.bulks, b.(*bulk))
				}
				return add(b, err)
			})
			if err == nil {
				err = add(&connections{track: single(), kept: single()}, nil)
			}
			if err != nil {
				return flows, fmt.Errorf("send from %s: %w", x.from.Name(), err)
			}
		}
	}
	return flows, nil
}

// streamPolicies starts to send between all pairs that a host judges.
func (s *Suite) streamPolicies(ctx context.Context, h *host) (*policyStream, error) {
	p := &policyStream{suite: s, finished: true}
	ctx, p.cancel = context.WithCancel(ctx)
	flows, err := p.senders(h)
	for pod, list := range flows {
		if err != nil {
			for _, f := range list {
				f.close()
			}
			continue
		}
		p.wg.Go(func() {
			var finished bool
			err := pod.Do(func() (err error) {
				finished, err = drive(ctx, list, s.options.PolicyEvery, s.options.Patience)
				return err
			})
			p.mu.Lock()
			defer p.mu.Unlock()
			p.errs, p.finished = append(p.errs, err), p.finished && finished
		})
	}
	return p, err
}

// end ends the traffic, and waits for what is under way.
func (p *policyStream) end() error {
	p.cancel()
	p.wg.Wait()
	p.suite.tracks.remove(p.tracks)
	return errors.Join(p.errs...)
}

// result sums up what came of it. Times are counted from start. wrong is what passed before the fault, and what got
// stuck for good.
func (p *policyStream) result(fault, start time.Time) (r PolicyTraffic, wrong []string) {
	for _, t := range p.tracks {
		early := 0
		for i, at := range t.sent {
			after := at.Sub(start)
			switch {
			case t.allowed:
				r.Allowed++
				if !t.arrived[i] {
					r.Lost, r.Losing = r.Lost+1, max(r.Losing, after)
				}
			default:
				r.Denied++
				if t.arrived[i] {
					r.Passed, r.Passing = r.Passed+1, max(r.Passing, after)
				}
			}
			if at.Before(fault) && !t.allowed && t.arrived[i] {
				early++
			}
		}
		if early > 0 {
			wrong = append(wrong, fmt.Sprintf("%d packets from %s to %s over %s passed before the fault",
				early, t.from.Name(), t.to.Name(), t.family))
		}
	}
	for _, b := range p.bulks {
		if missing := b.written - recordSize - b.received(); b.written == 0 || missing != 0 {
			wrong = append(wrong, fmt.Sprintf(
				"an allowed connection from %s to %s over %s got stuck: %d of %d bytes arrived",
				b.from.Name(), b.to.Name(), b.family, b.received(), b.written-recordSize))
		}
	}
	return r, wrong
}

// tracked says which connections are still tracked on a host that it denies: their packets pass. Also one from a server
// to a denied client is one, which began in the middle of a connection.
func (s *Suite) tracked(h *host) (problems []string, err error) {
	type ends struct{ from, to string }
	denied := map[ends]bool{}
	for _, p := range s.pairs(h) {
		for _, f := range s.families {
			if !p.allowed && p.as == nil {
				denied[ends{p.from.Addr(f).String(), p.to.Addr(f).String()}] = true
			}
		}
	}
	for _, f := range s.families {
		flows, err := h.connections(f)
		if err != nil {
			return nil, err
		}
		for _, c := range flows {
			from, to := c.Forward.SrcIP.String(), c.Forward.DstIP.String()
			if denied[ends{from, to}] || c.Forward.SrcPort == sinkPort && denied[ends{to, from}] {
				problems = append(problems, fmt.Sprintf(
					"%s: a denied connection is tracked: %s:%d to %s:%d, protocol %d",
					h.Name(), from, c.Forward.SrcPort, to, c.Forward.DstPort, c.Forward.Protocol))
			}
		}
	}
	return problems, nil
}

// reachPolicies sends over all pairs of a host, over the denied ones first, until all that is allowed arrives. Then
// nothing that is denied may have.
func (s *Suite) reachPolicies(ctx context.Context, h *host) (problems []string) {
	if h.policed.server == nil {
		return nil
	}
	var list []*track
	defer func() { s.tracks.remove(list) }()
	pairs := s.pairs(h)
	slices.SortStableFunc(pairs, func(a, b pair) int { return flag(a.allowed) - flag(b.allowed) })
	for {
		problems = nil
		var round []*track
		for _, p := range pairs {
			for _, f := range s.families {
				t := s.tracks.add(p, f)
				round = append(round, t)
				err := p.from.Do(func() error { return (&datagrams{track: t}).step(time.Now()) })
				if err != nil {
					return []string{err.Error()}
				}
			}
		}
		list = append(list, round...)
		for began := time.Now(); time.Since(began) < settled && problems == nil; time.Sleep(time.Millisecond) {
			if !slices.ContainsFunc(round, func(t *track) bool { return t.allowed && !t.has(0) }) {
				break
			}
		}
		for _, t := range round {
			if t.has(0) != t.allowed {
				problems = append(problems, fmt.Sprintf(
					"a packet from %s to %s over %s, which is allowed: %t, arrived: %t",
					t.from.Name(), t.to.Name(), t.family, t.allowed, t.has(0)))
			}
		}
		if problems == nil || !pause(ctx, 10*time.Millisecond) {
			return problems
		}
	}
}

func flag(is bool) int {
	if is {
		return 1
	}
	return 0
}
