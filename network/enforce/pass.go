package enforce

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// pass is what Run does, in one goroutine.
type pass struct {
	*Engine
	common                     ruleset.Options
	rules                      *ruleset.Ruleset
	policies, closing, sources *keeper
	bound                      nft.Content // of the table of sources
	dirty                      bool        // the tables may differ from the content because that has changed
	retries, repairs, lines    backoff.Backoff
	failing                    string // the error that was logged last
}

// How soon what failed is tried again, how soon after a repair the next one may follow, and how often repairs are
// logged.
var (
	retryBackoff  = backoff.Policy{Min: 50 * time.Millisecond, Max: 10 * time.Second}
	repairBackoff = backoff.Policy{First: time.Millisecond, Quick: 5, Min: 5 * time.Millisecond,
		Max: 500 * time.Millisecond, Settle: 5}
	linesBackoff = backoff.Policy{Min: 10 * time.Second, Max: 10 * time.Minute, Settle: 1}
)

// settingPause is how soon the setting of bridges is read again for which an attachment waits.
const settingPause = 5 * time.Millisecond

func (p *pass) run(ctx context.Context) error {
	defer func() {
		for _, k := range p.keepers() {
			k.close()
		}
	}()
	p.adopt()
	p.adoptCuts()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { p.cut(ctx) })
	resync := time.NewTicker(p.options.Resync)
	defer resync.Stop()
	for reading := p.options.LogGroup == 0; ; {
		again := p.once(ctx)
		if s := p.Status(); !reading && (s.Enforcing || len(s.Closed) > 0) { // from the first table on
			reading = true
			others.Go(func() { p.readDrops(ctx) })
		}
		var broken <-chan struct{}
		if p.repairs.Due(time.Now()) {
			broken = p.broken
		} else {
			again = sooner(again, max(time.Until(p.repairs.At()), time.Microsecond))
		}
		var timer <-chan time.Time
		if again > 0 {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-broken:
		case <-timer:
		case <-resync.C:
			for _, k := range p.keepers() {
				k.resync()
			}
			p.mu.Lock()
			p.cutsChanged = len(p.cuts) > 0 // some have been for long enough
			p.mu.Unlock()
		}
	}
}

// sooner returns the smaller of two durations, of which zero is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

func (p *pass) keepers() []*keeper { return []*keeper{p.policies, p.closing, p.sources} }

// adopt takes over the addresses that an earlier run has closed.
func (p *pass) adopt() {
	for _, f := range subnet.Families() {
		list, err := p.closing.table.Elements(ruleset.ClosedSet(f))
		if err != nil {
			continue // the next pass meets the same error, and logs it
		}
		p.mu.Lock()
		for _, a := range ruleset.ClosedIn(list) {
			p.closed[a] = true
		}
		p.mu.Unlock()
	}
}

// desired is what a pass has to apply.
type desired struct {
	known, enforcing  bool
	policies, sources *nft.Content // nil: absent
	unbound           bool         // which pod is behind which port is not known yet: the table of sources stays
	candidates        []*attached  // whose rules are in the content
	version, closings uint64
}

// gather takes what has changed.
func (p *pass) gather() (d desired) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.version = p.applied
	if p.synced {
		d.version = p.version
		changes := p.compiler.Changes()
		p.dirty = p.dirty || !changes.Empty() || !p.known
		p.known = true
		p.concern(p.rules.Apply(changes))
		if p.cutsChanged || len(p.cuts) > 0 && !changes.Empty() { // a change can allow what is cut
			p.cutsChanged = false
			p.rules.Cut(p.keptCuts(time.Now()))
			p.dirty = true
		}
		for _, x := range p.attached {
			_, known := p.podOf(x)
			switch judged := known || x.Namespace != "" && !p.compiler.MaySelect(x.Namespace); {
			case !judged:
				x.inSync = false
			case !x.inSync:
				d.candidates = append(d.candidates, x)
			}
		}
	}
	d.known, d.closings = p.known, p.closings
	d.enforcing = p.known && !p.rules.Empty()
	if !d.enforcing {
		return d
	}
	content := p.rules.Content()
	d.policies = &content
	d.unbound = !p.recorded
	if !p.options.AnySource && !d.unbound {
		if p.sourcesChanged || p.bound.Chains == nil {
			p.bound = ruleset.Sources(p.common, p.bindings())
			p.sourcesChanged, p.dirty = false, true
		}
		d.sources = &p.bound
	}
	return d
}

// once brings all tables in sync, and returns after what time to do so again; zero: when something changes.
func (p *pass) once(ctx context.Context) (again time.Duration) {
	d := p.gather()
	var policies, sources, closing error
	var repaired []string
	ensure := func(k *keeper, want *nft.Content, own bool) error {
		changed, external, err := k.ensure(ctx, want)
		if changed {
			p.options.Decided()
		}
		if changed && (external || !own) {
			repaired = append(repaired, k.name)
		}
		return err
	}
	if d.known {
		policies = ensure(p.policies, d.policies, p.dirty)
		if len(repaired) > 0 {
			p.judgeAll()
		}
		if !d.unbound {
			sources = ensure(p.sources, d.sources, p.dirty)
		}
		p.dirty = policies != nil || sources != nil
	}
	addresses, own := p.closedNow(d, policies == nil)
	var closed *nft.Content
	if len(addresses) > 0 {
		content := ruleset.Closed(p.common, addresses)
		closed = &content
	}
	closing = ensure(p.closing, closed, own)
	p.noteRepairs(repaired)
	again = p.noteErrors(errors.Join(policies, sources, closing))
	waiting := d.enforcing && len(d.candidates) > 0 && !bridgesPass()
	if waiting {
		again = sooner(again, settingPause)
	}
	p.finish(d, result{policies: policies, sources: sources, closing: closing, closed: addresses, waiting: waiting})
	return again
}

// closedNow returns the closed addresses, sorted, without those whose rules are in the kernel now. own reports whether
// they have changed.
func (p *pass) closedNow(d desired, applied bool) (list []netip.Addr, own bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own = d.closings != p.closingsApplied || p.closingErr != nil
	if d.known && applied && p.synced && bridgesPass() {
		for _, x := range d.candidates {
			for _, a := range addressesOf(x.Addresses) {
				own = own || p.closed[a]
				delete(p.closed, a)
			}
		}
		for a := range p.closed { // also those of an earlier run
			for pod := range p.compiler.PodsAt(a) {
				if p.isLocal(*pod) {
					own = true
					delete(p.closed, a)
					break
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(p.closed), netip.Addr.Compare), own
}

// result is what came of a pass.
type result struct {
	policies, sources, closing error
	closed                     []netip.Addr // that the pass was to close
	waiting                    bool         // attachments wait for the setting of bridges
}

// finish notes what is in the kernel now, and wakes who waits for it.
func (p *pass) finish(d desired, r result) {
	p.mu.Lock()
	if r.policies == nil && r.closing == nil && !r.waiting {
		for _, x := range d.candidates {
			x.inSync = true
		}
		p.applied = d.version
		if len(p.concerned) > 0 {
			notify(p.cutter)
		}
	}
	p.closingsApplied, p.closingErr = d.closings, r.closing
	before := p.state
	p.state = p.newState(d, r)
	changed := !before.equal(p.state)
	close(p.passed)
	p.passed = make(chan struct{})
	p.mu.Unlock()
	if changed {
		p.options.Changed()
	}
}

// noteRepairs logs repairs, and delays the next ones while another process keeps changing the tables.
func (p *pass) noteRepairs(tables []string) {
	if len(tables) == 0 {
		return
	}
	now := time.Now()
	p.repairs.Next(repairBackoff, now)
	p.mu.Lock()
	p.state.Repairs++
	p.mu.Unlock()
	if p.lines.Due(now) {
		p.lines.Next(linesBackoff, now)
		p.options.Log.WithField("tables", tables).Warn("repaired external changes to network policy rules")
	}
}

// noteErrors logs an error once, and returns after what time to try again.
func (p *pass) noteErrors(err error) time.Duration {
	if err == nil {
		p.retries.Reset()
		if p.failing != "" {
			p.failing = ""
			p.options.Log.Info("network policy rules applied again")
		}
		return 0
	}
	if text := err.Error(); text != p.failing {
		p.failing = text
		p.options.Log.WithError(err).Error("cannot apply network policy rules; retrying")
	}
	return p.retries.Next(retryBackoff, time.Now())
}

// bridgesPass reports whether packets between two ports of a bridge are judged: the node sets that while policies are
// enforced. Where br_netfilter is missing, there is nothing to wait for.
func bridgesPass() bool {
	for _, path := range BridgedPackets() {
		if value, err := readSetting(path); err == nil && value == "0" {
			return false
		}
	}
	return true
}

// BridgedPackets returns the settings, as paths below /proc/sys, by which packets between two ports of a bridge pass
// the forward hook of IP and are judged: of IPv4 and of IPv6.
func BridgedPackets() [2]string {
	return [2]string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"}
}

func readSetting(path string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b)), err
}
