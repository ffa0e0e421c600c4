package node

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
)

// rulesKeeper orders the filter rules from a goroutine of their own: iptables can take long, and wait for its lock.
type rulesKeeper struct {
	policy filter.Policy
	orders chan filter.Policy // size one: the latest
	filter *filter.Keeper
}

// keepRules orders the rules that hold now; the first call starts the goroutine that keeps them.
func (n *node) keepRules(ctx context.Context) {
	p := n.policy()
	if n.rules != nil {
		if !reflect.DeepEqual(n.rules.policy, p) {
			n.rules.policy = p
			select {
			case <-n.rules.orders: // an older order that nobody took
			default:
			}
			n.rules.orders <- p
		}
		return
	}
	n.rules = &rulesKeeper{policy: p, orders: make(chan filter.Policy, 1), filter: filter.NewKeeper()}
	run := rulesRun{keeper: n.rules.filter, log: n.Log, orders: n.rules.orders, set: n.rulesSet, resync: n.RulesResync}
	n.background.Go(func() { run.run(ctx, p, n.background.Go) })
}

// policy is what the packet filter is to do.
func (n *node) policy() filter.Policy {
	p := filter.Policy{
		Forward: n.Forward, Masquerade: n.IPMasq, RandomFully: n.RandomFully, Networks: networks(*n.config), NFTables: n.config.NFTables,
	}
	for _, l := range n.device.Links {
		p.Devices = append(p.Devices, l.Key)
	}
	if len(p.Devices) == 0 || direct(n.backend) { // peers, or some of them, are reached by the uplink
		p.Devices = append(p.Devices, n.uplink.Name)
	}
	for _, s := range n.subnets {
		if !s.IsValid() {
			continue
		}
		p.Own = append(p.Own, s)
		// The bridge of this node's pods holds the subnet, once there is one.
		bridge := n.tables.Routes.Get(network.RouteKey{Prefix: s, Metric: network.ConnectedMetric(s)}).Have.Link
		if bridge != "" && !slices.Contains(p.Devices, bridge) && !slices.Contains(p.Bridges, bridge) {
			p.Bridges = append(p.Bridges, bridge)
		}
	}
	return p
}

// Shortest times between two looks at the rules, however often somebody changes them. By iptables, each look runs that
// program a few times. By nftables it takes half a millisecond, more where others have thousands of chains: then it rests for
// ten times as long as it took.
const (
	rulesPause    = 300 * time.Millisecond
	nftablesPause = 20 * time.Millisecond
)

// idleRounds is how many times RulesResync passes without a look where the kernel tells of all changes and tells of none: by
// iptables, a look costs more than all else that the daemon does at rest.
const idleRounds = 12

// rulesRun is the goroutine that keeps the rules.
type rulesRun struct {
	keeper *filter.Keeper
	log    logrus.FieldLogger
	orders <-chan filter.Policy
	set    chan<- struct{} // told once, when the rules are in
	resync time.Duration

	news    chan struct{} // size one: our rules may have been changed
	stirred atomic.Bool   // something has changed in the packet filter since the last look, be it ours or not
	deaf    atomic.Bool   // nobody tells of changes
	inForce bool
	policy  filter.Policy // of the last look
	failed  string        // what was logged last
	said    filter.Status // what was logged last
}

// run sets the rules and looks at them again when the kernel tells of a change, and every resync, until ctx ends.
func (r *rulesRun) run(ctx context.Context, p filter.Policy, start func(func())) {
	defer r.keeper.Close()
	r.news = make(chan struct{}, 1)
	start(func() { r.watch(ctx) })
	ticker := time.NewTicker(r.resync)
	defer ticker.Stop()
	for {
		r.stirred.Store(false)
		began := time.Now()
		r.look(ctx, p)
		if ctx.Err() != nil {
			return
		}
		pause := rulesPause
		if r.said.Mode == filter.NFTables {
			pause = min(max(nftablesPause, 10*time.Since(began)), rulesPause)
		}
		sleep(ctx, pause)
		for idle, looking := 0, false; !looking; {
			select {
			case <-ctx.Done():
				return
			case p = <-r.orders:
				looking = true
			case <-r.news:
				looking = true
			case <-ticker.C:
				idle++
				looking = r.deaf.Load() || r.stirred.Load() || idle == idleRounds || !r.keeper.Notified() || r.failed != ""
			}
		}
	}
}

func (r *rulesRun) watch(ctx context.Context) {
	tell := func() {
		select {
		case r.news <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		if err := r.keeper.Watch(ctx, tell, tell, func() { r.stirred.Store(true) }); err != nil {
			r.deaf.Store(true)
			r.log.WithError(err).Warn("changes of the packet filter are only noticed every --iptables-resync")
			return // there is no nf_tables here, or we may not listen
		}
	}
}

// look makes the rules what p says, and says what there was to do.
func (r *rulesRun) look(ctx context.Context, p filter.Policy) {
	changed, err := r.keeper.Ensure(ctx, p)
	if ctx.Err() != nil {
		return
	}
	now := r.keeper.Status()
	somebodys := r.inForce && now.Mode == r.said.Mode && reflect.DeepEqual(p, r.policy)
	r.say(now)
	switch {
	case len(changed) > 0 && somebodys:
		r.log.WithField("changed", changed).Warn("somebody else changed our packet filter rules; they are right again")
	case len(changed) > 0:
		r.log.WithField("changed", changed).Info("packet filter rules are in")
	}
	switch {
	case err != nil && err.Error() != r.failed:
		r.failed = err.Error()
		r.log.WithError(err).Error("the packet filter is not as it should be; trying again")
	case err == nil && r.failed != "":
		r.failed = ""
		r.log.Info("the packet filter is as it should be again")
	}
	if r.policy = p; err == nil && !r.inForce {
		r.inForce = true
		r.set <- struct{}{} // has room
	}
}

// say logs what is new in a status.
func (r *rulesRun) say(now filter.Status) {
	if now.Mode != r.said.Mode || now.Why != r.said.Why {
		r.log.Infof("packet filter: %s (%s)", now.Mode, now.Why)
	}
	r.sayTrouble(logrus.ErrorLevel, texts(r.said.Unmet), texts(now.Unmet))
	r.sayTrouble(logrus.WarnLevel, texts(r.said.Unseen), texts(now.Unseen))
	r.sayTrouble(logrus.WarnLevel, r.said.Drops, now.Drops)
	r.sayTrouble(logrus.WarnLevel, r.said.Leftover, now.Leftover)
	r.said = now
}

// sayTrouble logs each trouble that was not there before, and the end of all of a kind.
func (r *rulesRun) sayTrouble(level logrus.Level, before, now []string) {
	for _, text := range now {
		if !slices.Contains(before, text) {
			r.log.WithFields(nil).Log(level, "packet filter: "+text)
		}
	}
	if len(before) > 0 && len(now) == 0 {
		r.log.Info("packet filter: all is well again; it was: " + strings.Join(before, "; "))
	}
}

func texts(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}
