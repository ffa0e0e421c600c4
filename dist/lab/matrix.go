package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// podsEach is how many pods each node of the matrix gets.
	podsEach = 2
	// combinationTime is how long a combination may take. It is for those that do not work: where nothing arrives, every
	// probe would wait until its end.
	combinationTime = 10 * time.Minute
)

// errRefused is a daemon that does not do what the network configuration asks for.
var errRefused = errors.New("refused by the daemon")

// Report is what became of a combination.
type Report struct {
	Combination  Combination
	Probes, Lost int    // see Lab.ProbeFamily
	Full, Stuck  int    // see Lab.ProbeFull: how many, and how many of them did not arrive
	Fragments    uint64 // see Lab.Fragments
	Took         time.Duration
	Problems     []string // what is not as it should be, the most telling first
	Logged       []string // what the daemons logged as a warning or an error, each line once
}

// OK tells whether all is as it should be.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Run builds a lab of the combination, probes between everything in each family, and takes the lab down. Of o it takes what
// the combination does not say.
func (c Combination) Run(ctx context.Context, o Options) Report {
	r := Report{Combination: c}
	began := time.Now()
	err := r.run(ctx, c.options(o))
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	r.Took = time.Since(began)
	return r
}

func (r *Report) run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, combinationTime)
	defer cancel()
	l, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		r.Logged = l.logged("warning", "error", "fatal")
		err = errors.Join(err, l.Close())
	}()
	if err := l.waitAccepted(ctx); err != nil {
		return err
	}
	for _, n := range l.nodes {
		for range podsEach {
			if _, err := l.AddPod(ctx, n, ""); err != nil {
				return err
			}
		}
	}
	if err := r.probe(ctx, l); err != nil {
		return err
	}
	wrong, err := l.WrongPaths(func(from, to *Node) bool { return r.Combination.Backend.Direct && l.OneSegment(from, to) })
	r.Problems = append(r.Problems, wrong...)
	if err == nil && len(r.Combination.wireGuards()) > 0 {
		wrong, err = l.unencryptedPaths(r.Combination.Backend.WireGuard)
		r.Problems = append(r.Problems, wrong...)
	}
	return err
}

// probe probes every pair in each family.
func (r *Report) probe(ctx context.Context, l *Lab) error {
	for _, p := range l.ProbeUnderlay(ctx) {
		if p.Err != nil {
			r.problem(p) // the lab's own fault
		}
	}
	before, err := l.Fragments()
	if err != nil {
		return err
	}
	for _, pair := range l.pairs() {
		for _, f := range r.Combination.Families {
			r.Probes++
			if p := l.ProbeFamily(ctx, f, pair[0], pair[1]); p.Err != nil {
				r.Lost++
				r.problem(p)
			}
			r.Full++
			if p := l.ProbeFull(ctx, f, pair[0], pair[1]); p.Err != nil {
				r.Stuck++
				r.problem(p)
			} else if want := r.Combination.podMTU(); pair[0].inOverlay && pair[1].inOverlay && p.Size != want {
				r.Problems = append(r.Problems, fmt.Sprintf("%s -> %s: an MTU of %d, want %d", p.From, p.To, p.Size, want))
			}
		}
	}
	after, err := l.Fragments()
	if r.Fragments = after - before; r.Fragments > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("packets were fragmented: %d fragments", r.Fragments))
	}
	return err
}

// problem notes a probe that failed.
func (r *Report) problem(p Result) {
	r.Problems = append(r.Problems, fmt.Sprintf("%s -> %s over %s: %v", p.From, p.To, p.Family, p.Err))
}

// pairs lists who is probed from whom: every pod from every other, from every node, and the other way round; the outside from
// every pod. The outside knows no way to pods, and nodes need no overlay among themselves.
func (l *Lab) pairs() (pairs [][2]*Endpoint) {
	pods := l.Pods()
	for _, from := range pods {
		for _, to := range pods {
			if from != to {
				pairs = append(pairs, [2]*Endpoint{from.Endpoint, to.Endpoint})
			}
		}
		for _, n := range l.nodes {
			pairs = append(pairs, [2]*Endpoint{from.Endpoint, n.Endpoint}, [2]*Endpoint{n.Endpoint, from.Endpoint})
		}
		pairs = append(pairs, [2]*Endpoint{from.Endpoint, l.Outside()})
	}
	return pairs
}

// waitAccepted is [Lab.WaitReady] that does not wait for a daemon which has said that it cannot: its log line is the error.
func (l *Lab) waitAccepted(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		l.watchRefusals(ctx, cancel)
	}()
	err := l.WaitReady(ctx)
	cancel(nil)
	<-watched
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errRefused) {
		return cause
	}
	if lines := l.logged("error", "fatal"); err != nil && len(lines) > 0 {
		return fmt.Errorf("%w: %s", errRefused, lines[0])
	}
	return err
}

// watchRefusals ends the waiting when a daemon has logged an error and is not ready after the lab's patience.
func (l *Lab) watchRefusals(ctx context.Context, cancel context.CancelCauseFunc) {
	var lines []string
	err := poll(ctx, nil, func() error {
		if lines = l.logged("error", "fatal"); len(lines) == 0 {
			return errNothing
		}
		return nil
	})
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(l.options.Patience):
		cancel(fmt.Errorf("%w: %s", errRefused, lines[0]))
	}
}

// logged returns what the daemons have logged at the given levels (logrus's TextFormatter), each line once and without the time.
func (l *Lab) logged(levels ...string) (lines []string) {
	for _, n := range l.nodes {
		text, err := os.ReadFile(n.log)
		if err != nil {
			continue // it has not begun
		}
		for line := range strings.Lines(string(text)) {
			_, line, _ := strings.Cut(strings.TrimSpace(line), " level=")
			level, _, _ := strings.Cut(line, " ")
			if slices.Contains(levels, level) && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}
