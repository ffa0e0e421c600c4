// Package rules keeps one node's packet filter rules in place from a goroutine of its own, because iptables can take
// seconds and waits for a lock. [Keeper.Set] says which rules are desired, [Keeper.Run] applies them, checks them again
// whenever the kernel reports a change, and logs what it had to do.
package rules

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/filter/blocking"
)

// Filter applies a policy and reports what it found; [filter.Keeper] is the real one. Status may be called from any
// goroutine and does not block. Watch runs beside the other methods.
type Filter interface {
	// Ensure makes the packet filter what p wants and returns a description of each change it made.
	Ensure(ctx context.Context, p filter.Policy) (changed []string, err error)
	// Watch calls changed when the rules may have changed, and activity for any change of the packet filter, until ctx
	// ends. It calls ready once, when it misses nothing from then on. It returns an error if changes cannot be watched.
	Watch(ctx context.Context, ready, changed, activity func()) error
	Status() filter.Status
	// Notified reports whether Watch sees every change to the rules.
	Notified() bool
	Close() error
}

// Shortest time between two checks, however often another process changes the rules. A check by iptables runs that
// program several times. One by nftables takes half a millisecond, and more where others have thousands of chains: the
// pause after it is ten times as long as it took.
const (
	iptablesPause = 300 * time.Millisecond
	nftablesPause = 20 * time.Millisecond
)

// How often lines are logged that another process can cause: fewLines of a kind within fewLogged, and of repairs the
// first at once and more at growing intervals.
const (
	fewLines  = 6
	fewLogged = 10 * time.Minute
)

var repairsBackoff = backoff.Policy{Min: 10 * time.Second, Max: 10 * time.Minute, Settle: 1}

// idleRounds is how many times resync passes without a check while the kernel reports all changes and reports none: a
// check by iptables costs more than everything else that the daemon does at rest.
const idleRounds = 12

// Keeper keeps the rules. Its methods are safe for concurrent use, except that Set and Applied are for one goroutine.
type Keeper struct {
	filter Filter
	log    logrus.FieldLogger
	resync time.Duration
	wake   func()
	// Changed is called after each change of the rules by a check; it must not block. nil: nothing is called. It is to
	// be set before Run.
	Changed func()

	desired *filter.Policy // as last set
	applied atomic.Pointer[filter.Policy]
	orders  chan filter.Policy // size one: the latest policy
	inForce atomic.Bool

	changed  chan struct{} // size one: the rules may have been changed
	activity atomic.Bool   // something has changed in the packet filter since the last check
	unseen   atomic.Bool   // changes are not reported

	// Only Run's goroutine uses what follows.
	policy  filter.Policy   // of the last check
	lastErr string          // of the last check; empty: it succeeded
	failing bool            // an error was logged
	repairs backoff.Backoff // between lines about repairs
	errors  backoff.Limiter // lines about errors
	changes backoff.Limiter // lines about changes of the status, and of the rules by this node
	logged  filter.Status
}

// New returns a keeper that checks the rules at least every resync, or less often where the kernel reports all changes.
// It calls wake, which must not block, when the rules are in force for the first time.
func New(f Filter, log logrus.FieldLogger, resync time.Duration, wake func()) *Keeper {
	return &Keeper{
		filter: f, log: log, resync: resync, wake: wake,
		orders: make(chan filter.Policy, 1), changed: make(chan struct{}, 1),
	}
}

// Set says which policy is desired from now on. It does not block, and does nothing if p is the policy already set.
func (k *Keeper) Set(p filter.Policy) {
	if k.desired != nil && reflect.DeepEqual(*k.desired, p) {
		return
	}
	k.desired = &p
	select {
	case <-k.orders: // an older policy that was not applied yet
	default:
	}
	k.orders <- p
}

// InForce reports whether the rules have been in force since the first success.
func (k *Keeper) InForce() bool { return k.inForce.Load() }

// Applied reports whether the rules of the policy that was set last are in force.
func (k *Keeper) Applied() bool {
	p := k.applied.Load()
	return p != nil && k.desired != nil && reflect.DeepEqual(*p, *k.desired)
}

// Status returns what the last check found; the zero Status before it.
func (k *Keeper) Status() filter.Status { return k.filter.Status() }

// Run waits for the first policy and keeps the rules until ctx ends. The rules stay then.
func (k *Keeper) Run(ctx context.Context) {
	defer k.filter.Close()
	var p filter.Policy
	select {
	case <-ctx.Done():
		return
	case p = <-k.orders:
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { k.watch(ctx) })
	ticker := time.NewTicker(k.resync)
	defer ticker.Stop()
	for {
		k.activity.Store(false)
		began := time.Now()
		k.check(ctx, p)
		if ctx.Err() != nil {
			return
		}
		pause := iptablesPause
		if k.logged.Mode == filter.NFTables {
			pause = min(max(nftablesPause, 10*time.Since(began)), iptablesPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		for idle, due := 0, false; !due; {
			select {
			case <-ctx.Done():
				return
			case p = <-k.orders:
				due = true
			case <-k.changed:
				due = true
			case <-ticker.C:
				idle++
				due = k.unseen.Load() || k.activity.Load() || idle == idleRounds || !k.filter.Notified() ||
					k.lastErr != ""
			}
		}
	}
}

func (k *Keeper) watch(ctx context.Context) {
	changed := func() {
		select {
		case k.changed <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		if err := k.filter.Watch(ctx, changed, changed, func() { k.activity.Store(true) }); err != nil {
			k.unseen.Store(true)
			k.log.WithError(err).Warn("cannot watch the packet filter: changes to it are noticed every " +
				"--iptables-resync only")
			return // there is no nf_tables here, or no permission to listen
		}
	}
}

// check makes the rules what p wants, and logs what there was to do.
func (k *Keeper) check(ctx context.Context, p filter.Policy) {
	changed, err := k.filter.Ensure(ctx, p)
	if len(changed) > 0 && k.Changed != nil {
		k.Changed()
	}
	if ctx.Err() != nil {
		return
	}
	now := k.filter.Status()
	external := k.inForce.Load() && now.Mode == k.logged.Mode && reflect.DeepEqual(p, k.policy)
	k.logStatus(now)
	switch {
	case len(changed) > 0 && external && k.repairs.Due(time.Now()):
		k.repairs.Next(repairsBackoff, time.Now())
		k.log.WithField("changed", changed).Warn("repaired external changes to packet filter rules")
	case len(changed) > 0 && !external && k.mayLog():
		k.log.WithField("changed", changed).Info("packet filter rules installed")
	}
	switch {
	case err != nil && err.Error() != k.lastErr:
		k.lastErr = err.Error()
		if k.errors.Allow(fewLines, fewLogged, time.Now()) == backoff.Pass {
			k.failing = true
			k.log.WithError(err).Error("cannot apply packet filter rules; retrying")
		}
	case err == nil && k.lastErr != "":
		if k.lastErr = ""; k.failing {
			k.failing = false
			k.log.Info("packet filter rules applied again")
		}
	}
	if k.policy = p; err != nil {
		return
	}
	k.applied.Store(&p)
	if !k.inForce.Swap(true) {
		k.wake()
	}
}

// logStatus logs what is new in a status.
func (k *Keeper) logStatus(now filter.Status) {
	if (now.Mode != k.logged.Mode || now.Why != k.logged.Why) && k.mayLog() {
		k.log.Infof("packet filter: %s (%s)", now.Mode, now.Why)
	}
	k.logProblems(logrus.ErrorLevel, unmet(k.logged), unmet(now))
	k.logProblems(logrus.WarnLevel, texts(k.logged.Unseen), texts(now.Unseen))
	k.logProblems(logrus.WarnLevel, reports(k.logged.Drops), reports(now.Drops))
	k.logProblems(logrus.WarnLevel, k.logged.Leftover, now.Leftover)
	k.logged = now
}

// logProblems logs each problem that was not there before, and the end of all problems of a kind.
func (k *Keeper) logProblems(level logrus.Level, before, now []string) {
	for _, text := range now {
		if !slices.Contains(before, text) && k.mayLog() {
			k.log.WithFields(nil).Log(level, "packet filter: "+text)
		}
	}
	if len(before) > 0 && len(now) == 0 && k.mayLog() {
		k.log.Info("packet filter: problem resolved: " + strings.Join(before, "; "))
	}
}

// mayLog reports whether a line about a change may be logged.
func (k *Keeper) mayLog() bool {
	return k.changes.Allow(4*fewLines, fewLogged, time.Now()) == backoff.Pass
}

func unmet(s filter.Status) []string {
	if s.Unmet == nil {
		return nil
	}
	return []string{s.Unmet.Error()}
}

func reports(drops []blocking.Drop) (all []string) {
	for _, d := range drops {
		all = append(all, d.Report())
	}
	return all
}

func texts(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}
