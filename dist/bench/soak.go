package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/chaos"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// What the daemons do by the clock is done a hundred times as often as by default. Only the packet filter cannot be looked at more than
// once a second, and leases are renewed more often still.
const (
	soakResync   = 3 * time.Second        // 5 minutes
	soakLeaseTTL = 60 * time.Second       // a day
	soakGrace    = 300 * time.Millisecond // 30 seconds
	soakMetrics  = "127.0.0.1:9473"
)

// What a round does.
const (
	soakLeases    = 200 // of nodes that do not exist, all the time
	soakChurn     = 40  // of them change, and as many more come and go
	soakPods      = 2   // that come and go, on each node
	soakAwayEvery = 10  // rounds, in one of which the store is killed
	soakAway      = time.Second
	soakMost      = time.Minute // that a step may take
	// mortal is the number of the one node whose daemon is killed and stopped. That of the others has to live all the while.
	mortal = 2
)

// What a busy cluster has of each in an hour, so that it can be said how much of life a soak is.
const (
	lifeLeases = 120 // 10,000 nodes, each replaced once a week: one comes and one goes
	lifePods   = 12  // on a node: 100, each there for 8 hours
	lifeFaults = 1   // on a node
	lifeAway   = 0.2
)

// soak is a lab in which all that can come and go does, over and over.
type soak struct {
	bench  *bench
	suite  *chaos.Suite
	lab    *lab.Lab
	store  subnet.StoreWords
	faults []chaos.Fault
	rng    *rand.Rand
	pids   map[string]int // of those that live, by node
	series []*Series
	done   struct{ leases, pods, faults, away, late int }
}

// soaks is the part.
func soaks(ctx context.Context, b *bench) (err error) {
	suite, err := chaos.New(ctx, chaos.Options{
		Bin: b.Bin, Families: dual(), Store: b.Store, Pods: 1, Leases: soakLeases, Stopped: time.Second,
		Args: []string{"--metrics-addr=" + soakMetrics, "--resync=" + soakResync.String(), "--subnet-lease-ttl=" + soakLeaseTTL.String(),
			"--peer-grace=" + soakGrace.String(), "--iptables-resync=1"},
	})
	if err != nil {
		return err
	}
	s := &soak{bench: b, suite: suite, lab: suite.Lab(), store: cmp.Or(b.Store, subnet.StoreEtcd).Words(),
		rng: rand.New(rand.NewPCG(b.Seed, 0)), pids: map[string]int{}}
	defer func() {
		for _, n := range s.lab.Nodes() {
			err = errors.Join(err, b.keep(n.LogPath()))
		}
		err = errors.Join(err, suite.Close())
	}()
	s.faults = soakable(chaos.Options{}.Faults())
	for i, n := range s.lab.Nodes() {
		if i != mortal {
			s.pids[n.Name()] = n.PID()
		}
	}
	b.step("  %d kinds of faults, --seed %d", len(s.faults), b.Seed)
	if s.lab.Etcd() == nil {
		b.step("  left out: leases that expire; a %s does not", s.store.Record)
	}
	began := time.Now()
	for round := 1; round <= fewestSamples || time.Since(began) < b.Soak; round++ {
		if err := s.round(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if round == 1 || round%10 == 0 {
			b.step("  round %d, after %s: %+v", round, time.Since(began).Round(time.Second), s.done)
		}
	}
	s.finish(time.Since(began))
	return nil
}

// soakable leaves out faults that take long: rounds are to be many.
func soakable(all []chaos.Fault) []chaos.Fault {
	return slices.DeleteFunc(all, func(f chaos.Fault) bool { return f.Long })
}

// round has everything happen once, and takes a sample when all is as it was.
func (s *soak) round(ctx context.Context, round int) error {
	if round%soakAwayEvery == soakAwayEvery/2 {
		if err := s.storeAway(ctx); err != nil {
			return fmt.Errorf("%s killed: %w", s.store.Name, err)
		}
	}
	if err := s.churn(ctx, byte(round%2)); err != nil {
		return err
	}
	for range s.bench.SoakFaults {
		if err := s.fault(ctx); err != nil { // all is right after it, or that is an error
			return err
		}
	}
	if err := s.ask(ctx); err != nil {
		return err
	}
	return s.sample(ctx)
}

// whole waits until all is right.
func (s *soak) whole(ctx context.Context) error {
	problems, err := s.suite.Whole(ctx)
	if err == nil && problems != nil {
		err = errors.New(strings.Join(problems, "\n"))
	}
	return err
}

// fault does a random one.
func (s *soak) fault(ctx context.Context) error {
	f := s.faults[s.rng.IntN(len(s.faults))]
	turns := s.suite.Turns(f)
	c := chaos.Case{Fault: f, Where: []chaos.Where{chaos.OneNode, chaos.OneNode, chaos.AllNodes, chaos.Stopped}[s.rng.IntN(4)],
		Families: turns[s.rng.IntN(len(turns))], Host: s.rng.IntN(3)}
	restarts := f.Class == chaos.Daemon || f.Before != nil // what sets the scene has the daemon start on it
	if restarts || !c.Where.Applies(f) {
		c.Where = chaos.OneNode
	}
	if restarts || c.Where == chaos.Stopped {
		c.Host = mortal
	}
	o, err := s.suite.Run(ctx, c)
	if err != nil {
		return err
	}
	s.done.faults++
	if len(o.Late) > 0 {
		s.done.late++
	}
	if len(o.Wrong) > 0 {
		return fmt.Errorf("%s (%s), --seed %d: %s\nlog:\n%s", f.Name, c.Where, s.bench.Seed, strings.Join(o.Wrong, "\n"), strings.Join(o.Log, "\n"))
	}
	return nil
}

// finish judges all series, and says how much of life that was.
func (s *soak) finish(took time.Duration) {
	r := s.bench.report
	nodes := float64(len(s.lab.Nodes()))
	for _, x := range []struct {
		what   string
		n      int
		inHour float64
	}{
		{"leases that came, changed or went", s.done.leases, lifeLeases},
		{"pods that came and went", s.done.pods, lifePods * nodes},
		{"faults", s.done.faults, lifeFaults * nodes},
		{"times that " + s.store.Name + " was killed", s.done.away, lifeAway},
	} {
		hours := float64(x.n) / x.inHour
		r.note("soak of %s: %d %s: %s hours of a life with %s an hour, %s times faster", took.Round(time.Second), x.n, x.what, number(hours), number(x.inHour),
			number(hours/took.Hours()))
	}
	r.note("soak: %d faults took longer to repair than make chaos lets them; only growth is judged here", s.done.late)
	for _, x := range s.series {
		x.judge(x.by)
	}
	r.Series = append(r.Series, s.series...)
}
