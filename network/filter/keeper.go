package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// retryInterval is the time until nftables is tried again after it proved to be unsupported.
const retryInterval = time.Minute

// Keeper keeps a policy in the packet filter, with nftables or iptables, and finds the rules of other agents that
// drop overlay traffic. It is safe for concurrent use. Several processes may each have a Keeper if they use the same
// policy. It works in the network namespace of the first call to [Keeper.Ensure].
type Keeper struct {
	port      atomic.Uint32 // netlink port of the connection, for Watch
	watched   atomic.Value  // the policy's tag, for Watch: a string
	mode      atomic.Value  // Mode, for Watch
	published atomic.Pointer[Status]

	mu             sync.Mutex
	rules          *Rules     // with iptables
	table          *nft.Table // nil: not opened
	unsupported    error      // why nftables cannot be used
	retryAt        time.Time  // when to try it again
	tag            string     // of the policy
	formerCleared  bool       // the rules of earlier runs under other names were removed
	flannelCleared bool       // flannel's leftover rules were removed
	last           facts      // of the last Ensure that could read the ruleset
	status         Status     // of the current Ensure
}

// Status is the result of the last [Keeper.Ensure].
type Status struct {
	Mode Mode   // the desired mode; "" before the first Ensure
	Code Reason // why this mode
	Why  string // the same for people
	// InForce is the mode in which the actual rules were set, "" if there are none. It differs from Mode while the
	// rules cannot be set in that mode: see Failed.
	InForce Mode
	// Unmet is not nil if the network config asks for another mode.
	Unmet *Unmet
	// Drops are the chains of other agents that drop overlay traffic.
	Drops []blocking.Drop
	// Leftover are sentences about rules of earlier runs or of flannel that could not be removed.
	Leftover []string
	// Failed is why the rules are not in sync with the policy; nil: they are.
	Failed error
	// Unseen is why the chains of other agents could not be read; nil: they could.
	Unseen error
}

// NewKeeper returns a Keeper. It changes nothing.
func NewKeeper() *Keeper {
	families := subnet.Families() // both: a disabled family may have leftover rules
	return &Keeper{rules: New(families[:]...)}
}

// Close closes the keeper's connection. The kernel keeps the rules.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.table == nil {
		return nil
	}
	t := k.table
	k.table = nil
	return t.Close()
}

// Status returns the result of the last Ensure. It does not wait for one that is running.
func (k *Keeper) Status() Status {
	if s := k.published.Load(); s != nil {
		return *s
	}
	return Status{}
}

// Notified reports whether the kernel notifies [Keeper.Watch] of every change to our rules. It does not for changes
// made by the legacy iptables.
func (k *Keeper) Notified() bool {
	return k.Status().Mode == NFTables || k.rules.Notified()
}

// Ensure brings the packet filter in sync with p and returns what it changed, as texts for a log: usually nothing. If
// nothing changed, it takes well under a millisecond with nftables, and a few runs of the program with iptables.
//
// Ensure chooses the mode each time. After a change of mode, it sets the new rules, and then removes those of the
// other mode, leftover rules of earlier runs and, after its first success, those of flannel.
func (k *Keeper) Ensure(ctx context.Context, p Policy) (changed []string, err error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() {
		k.status.Failed = err
		s := k.status
		k.published.Store(&s)
	}()
	k.use(p.Tag)
	seen, unseen := k.survey()
	f := k.facts(ctx, p, seen)
	changed, err = k.set(ctx, p, f)
	if errors.Is(err, nft.ErrUnsupported) && k.status.Mode == NFTables {
		k.disable(err)
		f.unsupported = k.unsupported
		changed, err = k.set(ctx, p, f)
	}
	if err != nil {
		k.reopen()
		return changed, err
	}
	k.status.InForce = k.status.Mode
	if unseen == nil {
		var cleared []string
		cleared, k.status.Leftover = k.clear(ctx, p, seen)
		changed = append(changed, cleared...)
	}
	if len(changed) > 0 {
		seen, unseen = k.survey()
	}
	k.findDrops(p, seen, unseen)
	return changed, nil
}

// findDrops finds the chains of other agents that drop overlay traffic. If the ruleset keeps changing while it is
// read, the last result stays.
func (k *Keeper) findDrops(p Policy, seen *blocking.Ruleset, unseen error) {
	var found []blocking.Drop
	for n := 0; unseen == nil; n++ {
		found, unseen = seen.Find(p.overlay(), tableName(p.Tag))
		if !errors.Is(unseen, blocking.ErrChanged) {
			break
		}
		if n == attempts {
			return
		}
		seen, unseen = k.survey()
	}
	k.status.Unseen, k.status.Drops = unseen, found
}

// overlay describes the traffic that the rules of other agents should accept.
func (p Policy) overlay() blocking.Overlay {
	return blocking.Overlay{Networks: p.Networks, Own: p.Own, Devices: p.Devices, Bridges: p.Bridges}
}

// use connects to nf_tables for the objects of the scope with a tag.
func (k *Keeper) use(tag string) {
	if tag != k.tag {
		k.reopen()
	}
	k.tag = tag
	k.watched.Store(tag)
	k.open()
}

// open connects to nf_tables, unless that is unsupported.
func (k *Keeper) open() {
	if k.unsupported != nil && time.Now().Before(k.retryAt) {
		return
	}
	k.unsupported = nil
	if k.table != nil {
		return
	}
	t, err := nft.Open(tableName(k.tag))
	if err != nil {
		k.disable(err)
		return
	}
	k.table = t
	k.port.Store(t.Port())
}

// reopen makes the next Ensure use a new connection, after an error with this one.
func (k *Keeper) reopen() {
	if k.table != nil {
		_ = k.table.Close() // a socket
		k.table = nil
	}
}

// disable avoids nftables for a while.
func (k *Keeper) disable(err error) {
	k.unsupported, k.retryAt = err, time.Now().Add(retryInterval)
}

// survey reads the ruleset of the kernel.
func (k *Keeper) survey() (*blocking.Ruleset, error) {
	var c *nft.Conn
	if k.table != nil {
		c = k.table.Conn
	}
	return blocking.Read(c)
}

// facts collects what the choice of a mode depends on. It runs programs only if the choice depends on them.
func (k *Keeper) facts(ctx context.Context, p Policy, seen *blocking.Ruleset) facts {
	if p.NFTables != nil {
		return facts{unsupported: k.unsupported, missing: !*p.NFTables && k.rules.missing(p)}
	}
	if k.unsupported != nil {
		return facts{unsupported: k.unsupported}
	}
	for n := 0; seen != nil && n <= attempts; n++ {
		f, err := k.factsOf(ctx, p, seen)
		if err == nil {
			k.last = f
			return f
		}
		seen, _ = k.survey()
	}
	return k.last // an unreadable ruleset is no reason to change the mode
}

func (k *Keeper) factsOf(ctx context.Context, p Policy, seen *blocking.Ruleset) (f facts, err error) {
	for _, family := range subnet.Families() {
		for _, t := range seen.Legacy[family] {
			if othersUse(t) {
				f.legacy = append(f.legacy, fmt.Sprintf("%s, table %s", family, t.Name))
			}
		}
	}
	if len(f.legacy) > 0 {
		f.programs = k.rules.have(ctx, p.families(), func(*tool) bool { return true })
		return f, nil
	}
	if !p.Forward {
		return f, nil
	}
	// Skip our own chain and flannel's: they accept the traffic, so the mode would alternate.
	found, err := seen.Find(p.overlay(), tableName(p.Tag), network.Tagged(ForwardChain, p.Tag),
		flannelForwardChain)
	i := slices.IndexFunc(found, blocking.Drop.Overridable)
	if i < 0 {
		return f, err
	}
	f.overridable = "table " + found[i].Table + ", chain " + found[i].Chain
	f.programs = k.rules.have(ctx, []subnet.Family{found[i].Family}, func(t *tool) bool { return t.nft })
	return f, nil
}

// families returns the families of the networks.
func (p Policy) families() (all []subnet.Family) {
	for _, f := range subnet.Families() {
		if len(inFamily(f, p.Networks)) > 0 {
			all = append(all, f)
		}
	}
	return all
}

// othersUse reports whether a table holds rules that are neither selvage's, of any scope, nor flannel's, or a policy
// other than accept.
func othersUse(t xtables.Table) bool {
	names := []string{ForwardChain, MasqueradeChain, flannelForwardChain, flannelMasqueradeChain}
	ours := func(chain string) bool {
		return slices.ContainsFunc(names, func(n string) bool {
			return chain == n || strings.HasPrefix(chain, n+"-")
		})
	}
	return slices.ContainsFunc(t.Chains, func(c xtables.Chain) bool {
		switch {
		case ours(c.Name):
			return false
		case !c.Builtin || !c.Accepts:
			return true
		}
		return slices.ContainsFunc(c.Rules, func(r xtables.Rule) bool { return !ours(r.To) })
	})
}

// set chooses a mode and sets its rules.
func (k *Keeper) set(ctx context.Context, p Policy, f facts) (changed []string, err error) {
	k.status.Mode, k.status.Code, k.status.Why = choose(p.NFTables, f)
	k.status.Unmet = unmet(p.NFTables, f)
	k.mode.Store(k.status.Mode)
	if k.status.Mode == NFTables {
		return k.ensureTable(p)
	}
	return k.rules.Ensure(ctx, p)
}
