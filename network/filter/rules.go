package filter

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"

	"github.com/selvage-net/selvage/subnet"
)

// attempts bounds the retries within one Ensure after another program changed the table at the same time.
const attempts = 5

// Rules keeps our rules of some families with iptables. It is safe for concurrent use, and several processes may each
// have one.
type Rules struct {
	families []subnet.Family

	mu    sync.Mutex
	tools [2]*tool        // by family; nil: not searched for yet, or not found
	clear map[string]bool // by family and table: it holds nothing of ours, and none was desired since
	// spelled maps a rule as iptables prints it to the same rule as we write it, for the few that some versions of
	// iptables print in another form. Without it we would replace them at every Ensure.
	spelled map[string]string
}

// New returns the rules of the given families. It changes nothing. It searches for a family's iptables when it needs
// it.
func New(families ...subnet.Family) *Rules {
	return &Rules{families: families, clear: make(map[string]bool), spelled: make(map[string]string)}
}

// Ensure brings the rules in sync with p and returns what it changed, as texts for a log: usually nothing. It may be
// called every few seconds: it takes two short listings for each table, and none for a table that needs no rules and
// was found clear before. It never touches rules of other programs.
//
// If a family or table fails, the others are still set; the errors of all are joined. A table that fails is not
// changed.
func (r *Rules) Ensure(ctx context.Context, p Policy) (changed []string, err error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, f := range r.families {
		changes, err := r.ensureFamily(ctx, f, p)
		changed = append(changed, changes...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	return changed, errors.Join(errs...)
}

// Notified reports whether the kernel notifies of every change to our rules. It does not for changes made by the legacy
// iptables.
func (r *Rules) Notified() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	notified := false
	for _, f := range r.families {
		if t := r.tools[f]; t != nil {
			if !t.nft {
				return false
			}
			notified = true
		}
	}
	return notified
}

// Remove removes all our rules and returns what it removed. It is Ensure with the zero [Policy].
func (r *Rules) Remove(ctx context.Context) (changed []string, err error) {
	return r.Ensure(ctx, Policy{})
}

func (r *Rules) ensureFamily(ctx context.Context, f subnet.Family, p Policy) (changed []string, err error) {
	if r.tools[f] == nil {
		t, err := find(ctx, f)
		switch {
		case err == nil:
			r.tools[f] = t
		case wantsNothing(p.tables(f)):
			return nil, nil // without rules, iptables is not needed
		default:
			return nil, fmt.Errorf("%s packet filter: %w", f, err)
		}
	}
	p.RandomFully = p.RandomFully && r.tools[f].randomFully
	var errs []error
	for _, want := range p.tables(f) {
		changes, err := r.ensureTable(ctx, f, want)
		for _, c := range changes {
			changed = append(changed, fmt.Sprintf("%s, table %s: %s", f, want.name, c))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s packet filter: %w", f, err))
		}
	}
	if len(errs) > 0 {
		r.tools[f] = nil // it may have been replaced: search for it again
	}
	return changed, errors.Join(errs...)
}

// have reports whether the iptables of all these families are installed and suitable.
func (r *Rules) have(ctx context.Context, families []subnet.Family, suitable func(*tool) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range families {
		if r.tools[f] == nil {
			t, err := find(ctx, f)
			if err != nil {
				return false
			}
			r.tools[f] = t
		}
		if !suitable(r.tools[f]) {
			return false
		}
	}
	return true
}

// missing reports whether p needs rules of a family whose iptables is not installed. It runs no program.
func (r *Rules) missing(p Policy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.families, func(f subnet.Family) bool {
		if r.tools[f] != nil || wantsNothing(p.tables(f)) {
			return false
		}
		_, err := lookUp(program(f))
		return errors.Is(err, exec.ErrNotFound)
	})
}

func wantsNothing(tables []table) bool {
	for _, t := range tables {
		if len(t.rules) > 0 {
			return false
		}
	}
	return true
}

// ensureTable reads, plans and applies until the table is in sync. It retries a failed plan only if the table has
// changed since: then a concurrent change is the likely cause.
func (r *Rules) ensureTable(ctx context.Context, f subnet.Family, want table) (changed []string, err error) {
	t, key := r.tools[f], f.String()+want.name
	if len(want.rules) == 0 && r.clear[key] {
		return nil, nil
	}
	delete(r.clear, key)
	var applied bool  // the last round succeeded
	var failed string // the input of the last round, if it failed
	var lastErr error // its error
	for n := 0; ; n++ {
		have, err := t.read(ctx, want)
		if errors.Is(err, errNoTable) && len(want.rules) == 0 {
			have, err = state{}, nil
		}
		if err != nil {
			return changed, err
		}
		if applied {
			r.learn(want, have)
		}
		input, changes := plan(want, r.respell(have))
		switch {
		case input == "":
			r.clear[key] = len(want.rules) == 0
			return changed, nil
		case input == failed || n == attempts && lastErr != nil:
			return changed, lastErr
		case n == attempts:
			return changed, fmt.Errorf("table %s: another program keeps changing chain %s or %s: find and stop that "+
				"program",
				want.name, want.parent, want.chain)
		}
		if lastErr = t.restore(ctx, input); lastErr != nil {
			applied, failed = false, input
			continue
		}
		applied, failed = true, ""
		changed = append(changed, changes...)
	}
}

// learn compares the rules that were just set with how iptables prints them, and remembers those that it prints in
// another form. Rules are the same only if their number, order, comments and targets are.
func (r *Rules) learn(want table, have state) {
	jumps, _ := split(have.parent, want.chain)
	for _, pair := range [][2][]string{{want.rules, have.rules}, {{want.jump}, jumps}} {
		written, printed := pair[0], pair[1]
		if len(written) != len(printed) {
			continue
		}
		for i := range written {
			w, p := written[i], printed[i]
			if w != p && comment(w) == comment(p) && target(w) == target(p) {
				r.spelled[p] = w
			}
		}
	}
}

// respell returns s with rules in the form in which we write them.
func (r *Rules) respell(s state) state {
	if len(r.spelled) == 0 {
		return s
	}
	ours := func(printed []string) []string {
		rules := make([]string, len(printed))
		for i, p := range printed {
			rules[i] = p
			if w, ok := r.spelled[p]; ok {
				rules[i] = w
			}
		}
		return rules
	}
	return state{parent: ours(s.parent), exists: s.exists, rules: ours(s.rules), blocking: s.blocking}
}
