package chaos

import (
	"context"
	"fmt"
	"time"
)

// Rest is what a daemon did while there was nothing to do.
type Rest struct {
	FastPath bool          // the daemon uses the fast path
	Over     time.Duration // how long its CPU time was counted
	CPU      time.Duration // of its own
	Programs time.Duration // of the programs that it ran, such as iptables
	Traced   time.Duration // how long, after that, its requests were counted
	Requests int           // to the kernel, through netlink
}

// maxAtRest is how much of a core a daemon may use at rest, without the programs it runs. With the fast path, it may
// use maxFastAtRest, since the kernel does not notify of programs and their maps: the daemon reads them, and what there
// is around them, through netlink.
const (
	maxAtRest     = 0.001
	maxFastAtRest = 0.003
)

// bound says how much of a core a daemon may use, and whether it rests within that, with what it requests.
func (r Rest) bound() (most float64, within bool) {
	if r.FastPath {
		return maxFastAtRest, r.Share() <= maxFastAtRest
	}
	return maxAtRest, r.Share() <= maxAtRest && r.Requests == 0
}

// Share is how much of a core the daemon used.
func (r Rest) Share() float64 { return r.CPU.Seconds() / r.Over.Seconds() }

func (r Rest) String() string {
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / r.Over.Seconds() }
	return fmt.Sprintf("daemon %.3f %% of a core over %s, and %.3f %% for the programs it ran; then %d netlink requests in %s",
		percent(r.CPU), r.Over, percent(r.Programs), r.Requests, r.Traced)
}

// A daemon that has just received thousands of leases has work to finish: it writes them to disk, and returns memory.
// That is over when it uses less than restless of CPU within a step; a daemon that never comes to rest is measured all
// the same.
const (
	// SettleStep is a step for [Suite.Rest] after which a daemon has written its leases: it does so every ten seconds
	// while they change.
	SettleStep = 12 * time.Second
	settleMost = 5                     // steps
	restless   = 20 * time.Millisecond // a tick or two of what the kernel counts in
)

// settle waits until a daemon is at rest, and returns the CPU time that it and its programs have used by then.
func (h *host) settle(ctx context.Context, step time.Duration) (cpu, programs time.Duration, err error) {
	for steps := 0; ; steps++ {
		before := cpu
		if cpu, programs, err = h.times(); err != nil || cpu-before < restless || steps == settleMost {
			return cpu, programs, err
		}
		if !pause(ctx, step) {
			return cpu, programs, ctx.Err()
		}
	}
}

// Rest leaves everything alone, and says what the first node's daemon did meanwhile, when it has come to rest, which
// is looked at every step. Of a daemon that is notified of changes and does not look for them itself, that is next to
// nothing, however many leases there are.
func (s *Suite) Rest(ctx context.Context, step, d, traced time.Duration) (Rest, error) {
	h := s.hosts[0]
	problems, err := s.await(ctx, s.hosts, func(h *host) ([]string, error) { return h.check(s.leases) })
	if err != nil || problems != nil {
		return Rest{}, fmt.Errorf("before a rest: %q, %w", problems, err)
	}
	r := Rest{FastPath: h.fast, Over: d, Traced: traced}
	cpu, programs, err := h.settle(ctx, step)
	if err != nil {
		return r, err
	}
	if !pause(ctx, d) {
		return r, ctx.Err()
	}
	cpuThen, programsThen, err := h.times()
	if err != nil {
		return r, err
	}
	r.CPU, r.Programs = cpuThen-cpu, programsThen-programs
	r.Requests, err = netlinkRequests(ctx, h.PID(), traced)
	return r, err
}
