package chaosstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// Outcome is what came of a fault.
type Outcome struct {
	Fault     Fault
	Scene     Scene
	Traffic   lab.StreamReport // of all streams together; Gap is the longest of one
	Converged time.Duration    // since the fault ended
	Requests  Requests         // that etcd got since the fault began, or since it was started again
	Remarks   []string
	Wrong     []string // what is not as it should be
	Log       []string // what the daemons said
}

// Late reports whether it took longer than it may.
func (o Outcome) Late() bool { return o.Converged > o.Fault.within() }

// OK reports whether all is well, apart from the time that it took.
func (o Outcome) OK() bool { return o.Wrong == nil && o.Traffic.Lost == 0 }

// run is a fault that is being done.
type run struct {
	*Suite
	before map[string]subnets // by node
	ended  time.Time          // when the fault did, if it says
	o      *Outcome
}

// over says that the fault ends now: what follows is the daemons' to do.
func (r *run) over() { r.ended = time.Now() }

func (r *run) remark(format string, args ...any) {
	r.o.Remarks = append(r.o.Remarks, fmt.Sprintf(format, args...))
}

func (r *run) wrong(format string, args ...any) {
	r.o.Wrong = append(r.o.Wrong, fmt.Sprintf(format, args...))
}

// rest waits for d, or for the end.
func (r *run) rest(ctx context.Context, long, short time.Duration) {
	pause(ctx, r.options.lasting(long, short))
}

// follows makes sure that a change is followed by all nodes in the middle of the fault, and says how long that took.
func (r *run) follows(ctx context.Context, while string) {
	took, wrong := r.converge(ctx, r.before, time.Now())
	if wrong != nil {
		r.wrong("%s: not followed: %q", while, wrong)
		return
	}
	r.remark("%s: a change was followed after %s", while, took.Round(time.Millisecond))
}

// Run does a fault and says what came of it. The error is for what keeps it from finding out.
func (s *Suite) Run(ctx context.Context, f Fault) (Outcome, error) {
	o := Outcome{Fault: f, Scene: s.scene}
	before, err := s.subnets(ctx)
	if err != nil {
		return o, err
	}
	logged := map[*host]int64{}
	for _, h := range s.hosts {
		logged[h] = h.logSize()
	}
	r := &run{Suite: s, before: before, o: &o}
	if f.Prepare != nil {
		if err := f.Prepare(ctx, r); err != nil {
			return o, fmt.Errorf("%s: prepare: %w", f.Name, err)
		}
	}
	asked := s.store.read(ctx)
	stop := s.stream(ctx, f.pairs(), &o)
	err = f.Do(ctx, r)
	if r.ended.IsZero() {
		r.over()
	}
	if err == nil {
		if f.Moves {
			before = nil
		}
		var wrong []string
		o.Converged, wrong = s.converge(ctx, before, r.ended)
		o.Wrong = append(o.Wrong, wrong...)
		if f.Check != nil {
			err = f.Check(ctx, r)
		}
	}
	stop()
	o.Requests = s.store.read(ctx).since(asked)
	for _, h := range s.hosts {
		for _, line := range h.logSince(logged[h]) {
			o.Log = append(o.Log, h.Name()+": "+line)
		}
	}
	if f.After != nil && err == nil {
		err = f.After(ctx, r)
	}
	if err != nil {
		return o, fmt.Errorf("%s: %w", f.Name, err)
	}
	return o, nil
}

// stream sends datagrams between pods until the function returned is called. What flows before and after shows that it is
// the fault that costs.
func (s *Suite) stream(ctx context.Context, pairs [][2]int, o *Outcome) (stop func()) {
	const around = 100 * time.Millisecond
	streaming, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	var mu sync.Mutex
	for _, p := range pairs {
		from, to := s.hosts[p[0]].pod.Endpoint, s.hosts[p[1]].pod.Endpoint
		running.Go(func() {
			reports, err := s.lab.StreamShared(streaming, from, to, probeEvery)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				o.Wrong = append(o.Wrong, err.Error())
				return
			}
			for _, r := range reports {
				if r.Lost > 0 {
					o.Remarks = append(o.Remarks, fmt.Sprintf("from %s to %s over %s: %s", from.Name(), to.Name(), r.Family, r))
				}
				o.Traffic.Sent, o.Traffic.Lost, o.Traffic.Gap = o.Traffic.Sent+r.Sent, o.Traffic.Lost+r.Lost, max(o.Traffic.Gap, r.Gap)
			}
		})
	}
	pause(ctx, around)
	return func() {
		pause(ctx, around)
		cancel()
		running.Wait()
	}
}

// All does faults, each in a lab with the scene it wants, and hands over what came of them. Faults that want the same scene
// share a lab, up to one that spoils it.
func All(ctx context.Context, o Options, faults []Fault, report func(Outcome)) error {
	for len(faults) > 0 {
		scene := faults[0].Scene
		var later []Fault
		s, err := New(ctx, o, scene)
		if err != nil {
			return err
		}
		for i, f := range faults {
			if f.Scene != scene {
				later = append(later, f)
				continue
			}
			outcome, err := s.Run(ctx, f)
			if err != nil {
				return withClose(s, err)
			}
			report(outcome)
			if f.Spoils || outcome.Wrong != nil {
				later = append(later, faults[i+1:]...) // in a lab of their own
				break
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
		faults = later
	}
	return nil
}

func withClose(s *Suite, err error) error {
	if closing := s.Close(); closing != nil {
		return fmt.Errorf("%w; and %w", err, closing)
	}
	return err
}
