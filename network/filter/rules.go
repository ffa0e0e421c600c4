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

// attempts bounds how often a table is planned anew within one Ensure because somebody else changed it at the same time.
const attempts = 5

// Rules keeps our rules of some families in the packet filter. It is safe for concurrent use, and several processes may
// each have one.
type Rules struct {
	families []subnet.Family

	mu    sync.Mutex
	tools [2]*tool        // by family; nil: not looked for yet, or not found
	clear map[string]bool // by family and table: nothing of ours is there and nothing was wanted since
	// spelled maps a rule as iptables prints it to the same rule as we write it, for those few that a version of iptables
	// prints in other words. Without it we would set them again for ever.
	spelled map[string]string
}

// New returns the rules of the given families. It does nothing yet; a family's iptables is looked for when it is needed.
func New(families ...subnet.Family) *Rules {
	return &Rules{families: families, clear: make(map[string]bool), spelled: make(map[string]string)}
}

// Ensure makes the packet filter what p wants and says, in words for a log, what it had to change for that: nothing, as a
// rule. It is cheap enough to be called every few seconds: two short listings a table, and none at all for a table that p
// wants nothing of and that was found clear before. Rules that are not ours are never touched.
//
// A family or table that fails does not keep the others from being set; the errors of all are joined. Nothing of a table
// is changed if it fails.
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

// Told reports whether the kernel tells [Watch] of all changes to our rules: not those that the legacy iptables makes.
func (r *Rules) Told() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := false
	for _, f := range r.families {
		if t := r.tools[f]; t != nil {
			if !t.nft {
				return false
			}
			told = true
		}
	}
	return told
}

// Remove takes all that is ours out of the packet filter and says what that was. It is Ensure with the zero [Policy].
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
			return nil, nil // whoever needs no rules needs no iptables either
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
		r.tools[f] = nil // it may have been replaced under us: look for it anew
	}
	return changed, errors.Join(errs...)
}

// have reports whether the iptables of all these families are there, and fit.
func (r *Rules) have(ctx context.Context, families []subnet.Family, fits func(*tool) bool) bool {
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
		if !fits(r.tools[f]) {
			return false
		}
	}
	return true
}

// missing reports whether there is no iptables for rules that p wants. Nothing is run for that.
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

// ensureTable reads, plans and applies until a reading shows nothing left to do. A plan that fails is tried again only if
// the table has changed under it: then somebody else's edit is the likely reason.
func (r *Rules) ensureTable(ctx context.Context, f subnet.Family, want table) (changed []string, err error) {
	t, key := r.tools[f], f.String()+want.name
	if len(want.rules) == 0 && r.clear[key] {
		return nil, nil
	}
	delete(r.clear, key)
	var applied bool  // the round before took effect
	var failed string // the input that the round before failed with
	var lastErr error // and how
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
			return changed, fmt.Errorf("table %s does not stay as it is set: find the other program that changes %s or %s",
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

// learn compares what was set a moment ago with how it reads, and remembers rules that are the same in other words. Only
// the same number of rules, with the same comments and targets in the same order, is taken for the same.
func (r *Rules) learn(want table, have state) {
	jumps, _ := split(have.parent, want.chain)
	for _, pair := range [][2][]string{{want.rules, have.rules}, {{want.jump}, jumps}} {
		written, printed := pair[0], pair[1]
		if len(written) != len(printed) {
			continue
		}
		for i := range written {
			if written[i] != printed[i] && comment(written[i]) == comment(printed[i]) && target(written[i]) == target(printed[i]) {
				r.spelled[printed[i]] = written[i]
			}
		}
	}
}

// respell returns s in our words.
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
