package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// triedAgain is how long nftables is left alone after it turned out that it cannot be used.
const triedAgain = time.Minute

// Keeper keeps a policy in the packet filter, by nftables or by iptables as it is wished and as it is possible, and looks who
// else drops the overlay's packets. It is safe for concurrent use, and several processes may each have one, but for different
// wishes. It works in the network namespace in which [Keeper.Ensure] was called first.
type Keeper struct {
	port  atomic.Uint32 // of the connection, and the mode: for Watch
	mode  atomic.Value
	shown atomic.Pointer[Status] // what was found last: who asks does not wait for who looks

	mu          sync.Mutex
	rules       *Rules     // by iptables
	table       *nft.Table // nil: not opened
	unsupported error      // why nftables cannot be used
	again       time.Time  // when to try it again
	flannel     bool       // what flannel left was looked for
	last        facts      // of the last look that saw any
	status      Status     // of this look
}

// Status is what a Keeper found when it looked last.
type Status struct {
	Mode Mode   // "" before the first look
	Why  string // this mode
	// InForce is the mode by which the rules that are in were set; "" while none are. It is another one than Mode as long as
	// those could not be set, see Failed.
	InForce Mode
	// Unmet is not nil if the network config wishes for another mode.
	Unmet error
	// Drops are sentences about who else drops the overlay's packets, with what to do about it.
	Drops []string
	// Left are sentences about rules of another time that could not be removed.
	Left []string
	// Failed is why the rules are not as they are to be; nil: they are.
	Failed error
	// Unseen is why it could not be seen, if so, who drops what.
	Unseen error
}

// NewKeeper returns a keeper. It does nothing yet.
func NewKeeper() *Keeper {
	families := subnet.Families()
	// Of a family that is off, what an earlier run left is taken away.
	return &Keeper{rules: New(families[:]...)}
}

// Close gives back what the keeper has open. The rules stay.
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

// Status returns what was found last.
func (k *Keeper) Status() Status {
	if s := k.shown.Load(); s != nil {
		return *s
	}
	return Status{}
}

// Told reports whether the kernel tells [Keeper.Watch] of all changes to our rules: not those that the legacy iptables makes.
func (k *Keeper) Told() bool {
	return k.Status().Mode == NFTables || k.rules.Told()
}

// Ensure makes the packet filter what p wants and says, in words for a log, what it had to change for that: nothing, as a
// rule. By nftables, looking costs well under a millisecond; by iptables, a few runs of that program.
//
// The mode is chosen anew each time. If it is another one than before, its rules are in before those of the other go, and so
// do rules of an earlier run in whatever form; at the first success, those that flannel left as well.
func (k *Keeper) Ensure(ctx context.Context, p Policy) (changed []string, err error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() {
		k.status.Failed = err
		s := k.status
		k.shown.Store(&s)
	}()
	k.open()
	seen, unseen := k.survey()
	f := k.facts(ctx, p, seen)
	changed, err = k.set(ctx, p, f)
	if errors.Is(err, nft.ErrUnsupported) && k.status.Mode == NFTables {
		k.cannot(err)
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
		cleared, k.status.Left = k.clear(ctx, seen)
		changed = append(changed, cleared...)
	}
	if len(changed) > 0 {
		seen, unseen = k.survey()
	}
	k.findDrops(p, seen, unseen)
	return changed, nil
}

// findDrops looks who else drops the overlay's packets. Where others change so much that it cannot be seen, what was found
// before stays.
func (k *Keeper) findDrops(p Policy, seen *blocking.Ruleset, unseen error) {
	var found []blocking.Drop
	for n := 0; unseen == nil; n++ {
		found, unseen = seen.Find(p.overlay(), Table)
		if !errors.Is(unseen, blocking.ErrMoved) {
			break
		}
		if n == attempts {
			return
		}
		seen, unseen = k.survey()
	}
	k.status.Unseen, k.status.Drops = unseen, nil
	for _, d := range found {
		k.status.Drops = append(k.status.Drops, d.String())
	}
}

// overlay is whose packets are to pass.
func (p Policy) overlay() blocking.Overlay {
	return blocking.Overlay{Networks: p.Networks, Own: p.Own, Devices: p.Devices, Bridges: p.Bridges}
}

// open connects to nf_tables, unless it cannot be used.
func (k *Keeper) open() {
	if k.unsupported != nil && time.Now().Before(k.again) {
		return
	}
	k.unsupported = nil
	if k.table != nil {
		return
	}
	t, err := nft.Open(Table)
	if err != nil {
		k.cannot(err)
		return
	}
	k.table = t
	k.port.Store(t.Port())
}

// reopen has the next look begin with another connection: something was wrong with this one, or it was of another time.
func (k *Keeper) reopen() {
	if k.table != nil {
		_ = k.table.Close() // a socket
		k.table = nil
	}
}

func (k *Keeper) cannot(err error) {
	k.unsupported, k.again = err, time.Now().Add(triedAgain)
}

// survey reads what others have.
func (k *Keeper) survey() (*blocking.Ruleset, error) {
	var c *nft.Conn
	if k.table != nil {
		c = k.table.Conn
	}
	return blocking.Read(c)
}

// facts gathers what the choice of a mode rests on. Programs are run only where it hangs on them.
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
	return k.last // nothing can be seen for now, which is no reason to change over
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
	// Were our own chain there, or flannel's, nothing would be dropped, and the mode would go back and forth.
	found, err := seen.Find(p.overlay(), Table, ForwardChain, flannelForwardChain)
	i := slices.IndexFunc(found, blocking.Drop.Undoable)
	if i < 0 {
		return f, err
	}
	f.undoable = "table " + found[i].Table + ", chain " + found[i].Chain
	f.programs = k.rules.have(ctx, []subnet.Family{found[i].Family}, func(t *tool) bool { return t.nft })
	return f, nil
}

// families are those of the networks.
func (p Policy) families() (all []subnet.Family) {
	for _, f := range subnet.Families() {
		if len(inFamily(f, p.Networks)) > 0 {
			all = append(all, f)
		}
	}
	return all
}

// othersUse reports whether a table holds more than what we or flannel put there, and policies that accept.
func othersUse(t xtables.Table) bool {
	ours := []string{ForwardChain, MasqueradeChain, flannelForwardChain, flannelMasqueradeChain}
	return slices.ContainsFunc(t.Chains, func(c xtables.Chain) bool {
		switch {
		case slices.Contains(ours, c.Name):
			return false
		case !c.Builtin || !c.Accepts:
			return true
		}
		return slices.ContainsFunc(c.Rules, func(r xtables.Rule) bool { return !slices.Contains(ours, r.To) })
	})
}

// set chooses a mode and puts its rules in.
func (k *Keeper) set(ctx context.Context, p Policy, f facts) (changed []string, err error) {
	k.status.Mode, k.status.Why = choose(p.NFTables, f)
	k.status.Unmet = unmet(p.NFTables, f)
	k.mode.Store(k.status.Mode)
	if k.status.Mode == NFTables {
		return k.ensureTable(p)
	}
	return k.rules.Ensure(ctx, p)
}
