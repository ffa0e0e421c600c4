package node

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/subnet"
)

// publish tells the world outside, once the node's own part of the overlay works: the rules first, then the subnet file,
// on which container runtimes act, then readiness.
func (n *node) publish(ctx context.Context) {
	if !n.programmed || !n.own.final || n.tables.Links.PendingCount()+n.tables.Addresses.PendingCount()+n.tables.Sysctls.PendingCount() > 0 {
		return
	}
	n.keepRules(ctx)
	if !n.rulesInForce {
		return
	}
	file := n.file()
	content := string(file.Marshal())
	if n.published == content {
		return
	}
	if err := subnet.WriteFile(n.SubnetFile, file); err != nil {
		n.sayOnce("subnet file", err)
		n.setupAt = time.Now().Add(waitAfterFailure) // only to wake up again
		return
	}
	n.forget("subnet file")
	n.published = content
	if !n.ready {
		n.ready = true
		n.Log.WithField("subnet_file", n.SubnetFile).Info("ready")
		if n.Options.Ready != nil {
			n.Options.Ready()
		}
	}
}

// file is the content of the subnet file.
func (n *node) file() subnet.File {
	f := subnet.File{MTU: n.backend.MTU(), IPMasq: n.IPMasq}
	for _, family := range subnet.Families() {
		if r := n.config.Ranges[family]; r.Enabled() {
			f.Networks[family] = []netip.Prefix{r.Network}
			f.Subnets[family] = subnet.Gateway(n.subnets[family])
		}
	}
	return f
}

// previousSubnets reads which subnets an earlier run had from its subnet file.
func (n *node) previousSubnets() (subnets [2]netip.Prefix) {
	f, err := subnet.ReadFile(n.SubnetFile)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.Log.WithError(err).Warn("the subnet file of an earlier run is of no use; it will be written anew")
		}
		return subnets
	}
	for _, family := range subnet.Families() {
		if p := f.Subnets[family]; p.IsValid() {
			subnets[family] = p.Masked()
		}
	}
	return subnets
}

// rulesKeeper orders the filter rules from a goroutine of their own: iptables can take long, and wait for its lock.
type rulesKeeper struct {
	policy filter.Policy
	orders chan filter.Policy // size one: the latest
}

// keepRules orders the rules that hold now; the first call starts the goroutine that keeps them.
func (n *node) keepRules(ctx context.Context) {
	p := filter.Policy{Forward: n.Forward, Masquerade: n.IPMasq, RandomFully: n.RandomFully, Networks: networks(*n.config)}
	for _, s := range n.subnets {
		if s.IsValid() {
			p.Own = append(p.Own, s)
		}
	}
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
	keeper := &rulesKeeper{policy: p, orders: make(chan filter.Policy, 1)}
	n.rules = keeper
	n.background.Go(func() { n.runRules(ctx, keeper.orders, p) })
}

// rulesPause is the shortest time between two looks at the rules, however often somebody changes them: each look runs
// iptables a few times.
const rulesPause = 300 * time.Millisecond

// idleRounds is how many times RulesResync passes without a look where the kernel tells of all changes and tells of none: a
// look costs more than all else that the daemon does at rest.
const idleRounds = 12

// runRules sets the rules and looks at them again when the kernel tells of a change, and every RulesResync, until ctx
// ends.
func (n *node) runRules(ctx context.Context, orders <-chan filter.Policy, p filter.Policy) {
	news := make(chan struct{}, 1)
	tell := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	var stirred atomic.Bool // something has changed in the packet filter since the last look, be it ours or not
	stir := func() { stirred.Store(true) }
	var deaf atomic.Bool
	n.background.Go(func() {
		for ctx.Err() == nil {
			if err := filter.Watch(ctx, tell, tell, stir); err != nil {
				deaf.Store(true)
				n.Log.WithError(err).Warn("changes of the packet filter are only noticed every --iptables-resync")
				return // there is no nf_tables here, or we may not listen
			}
		}
	})
	// Of a family that is off, what an earlier run left is taken away.
	families := subnet.Families()
	rules := filter.New(families[:]...)
	ticker := time.NewTicker(n.RulesResync)
	defer ticker.Stop()
	inForce, failed := false, ""
	for {
		err := n.ensureRules(ctx, rules, p, !inForce)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != failed:
			failed = err.Error()
			n.Log.WithError(err).Error("the packet filter is not as it should be; trying again")
		case err == nil:
			if failed != "" {
				n.Log.Info("the packet filter is as it should be again")
			}
			failed = ""
			if !inForce {
				inForce = true
				n.rulesSet <- struct{}{} // has room
			}
		}
		sleep(ctx, rulesPause)
		for idle, looking := 0, false; !looking; {
			select {
			case <-ctx.Done():
				return
			case p = <-orders:
				looking = true
			case <-news:
				looking = true
			case <-ticker.C:
				idle++
				looking = deaf.Load() || stirred.Load() || idle == idleRounds || !rules.Told()
			}
		}
		stirred.Store(false)
	}
}

func (n *node) ensureRules(ctx context.Context, rules *filter.Rules, p filter.Policy, first bool) error {
	changed, err := rules.Ensure(ctx, p)
	if len(changed) > 0 {
		entry := n.Log.WithFields(logrus.Fields{"changed": changed})
		if first {
			entry.Info("packet filter rules are in")
		} else {
			entry.Warn("somebody else changed our packet filter rules; they are right again")
		}
	}
	return err
}
