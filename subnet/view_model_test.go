package subnet

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// world is a store, a view that watches it, and what the view's changes add up to. Its network is so small and its
// leases are so many that most overlap.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	store  map[string]Record
	now    int64 // the store's revision
	view   *View
	rules  *Rules
	seen   map[string]Record // what the view has been shown and must go by
	synced bool
	told   map[string]Lease
}

// TestViewModel drives a View through random histories and compares the sum of its changes with a reference that knows
// all records, and looks at them one by one.
func TestViewModel(t *testing.T) {
	rnd := newRand(t)
	for range 40 {
		w := &world{t: t, rnd: rnd, store: map[string]Record{}, view: NewView(), told: map[string]Lease{}}
		for range 120 {
			if w.step(); t.Failed() {
				return
			}
		}
		w.take("end", w.view.Apply(Event{Type: Synced, Revision: w.now + 1}))
		if len(w.told) > 0 {
			t.Errorf("still told after an empty snapshot: %v", w.told)
		}
		if n := w.view.remembered(); n != 0 {
			t.Errorf("%d things left in the empty view", n)
		}
	}
}

// remembered counts what a view has in all its tables.
func (v *View) remembered() int {
	return v.bySubnet[IPv4].Size() + v.bySubnet[IPv6].Size() + len(v.entries) + len(v.byThing.one) + len(v.byThing.many) +
		len(v.byPublicIP.one) + len(v.byPublicIP.many) + len(v.dirty) + len(v.bad) + v.strays + v.uncounted
}

func (w *world) step() {
	switch n := w.rnd.IntN(20); {
	case n == 0:
		w.setRules()
	case n == 1: // the watch was lost and missed something
		for range w.rnd.IntN(4) {
			w.mutate()
		}
		w.snapshot()
	case n == 2 && w.rnd.IntN(4) == 0: // wiped; the revisions begin again
		w.store, w.now = map[string]Record{}, 0
		for range w.rnd.IntN(10) {
			w.mutate()
		}
		w.snapshot()
	case !w.synced: // no store tells of a change before it told of what there is
		w.mutate()
	default:
		e := w.mutate()
		for _, r := range e.Put {
			w.seen[r.Name] = r
		}
		for _, key := range e.Deleted {
			delete(w.seen, key)
		}
		w.take("change", w.view.Apply(e))
		w.compare()
	}
}

// mutate changes the store in one transaction and returns the event of that.
func (w *world) mutate() Event {
	w.now++
	e := Event{Type: Changed, Revision: w.now}
	changed := map[string]bool{}
	for range 1 + w.rnd.IntN(3) {
		r := decoded(w.key(), w.value(), w.now, w.now, 1)
		if w.rnd.IntN(4) == 0 { // a store that names a record otherwise, and whose subnets can change
			r.Name = fmt.Sprintf("node-%d", w.rnd.IntN(8))
		}
		if known := slices.Sorted(maps.Keys(w.store)); len(known) > 0 && w.rnd.IntN(2) == 0 {
			old := w.store[known[w.rnd.IntN(len(known))]]
			if named := strings.HasPrefix(old.Name, "node-"); !named || w.rnd.IntN(2) == 0 {
				r = decoded(FormatKey(old.Endpoints[IPv4].Subnet, old.Endpoints[IPv6].Subnet), w.value(), w.now, w.now, 1)
			}
			r.Name = old.Name
			switch w.rnd.IntN(4) {
			case 0: // deleted and created again in between
			case 1: // a renewal in flannel's manner
				r.Lease, r.Bad, r.Order = old.Lease, old.Bad, old.Order
			default:
				r.Order = old.Order
			}
		}
		if changed[r.Name] {
			continue
		}
		changed[r.Name] = true
		if w.rnd.IntN(3) == 0 {
			delete(w.store, r.Name)
			e.Deleted = append(e.Deleted, r.Name) // now and then of a key that nobody knows
			continue
		}
		w.store[r.Name] = r
		e.Put = append(e.Put, r)
	}
	return e
}

// snapshot lists the store to the view, now and then at the second attempt, and changes the rules in the middle of it.
func (w *world) snapshot() {
	list := func(end int) {
		records := slices.Collect(maps.Values(w.store))
		for part := range slices.Chunk(records, 1+w.rnd.IntN(5)) {
			if end--; end == 0 {
				return
			}
			before := w.view.Revision()
			if c := w.view.Apply(Event{Type: Page, Revision: w.now, Put: part}); len(c) > 0 || w.view.Revision() != before {
				w.t.Errorf("a page gave %d changes, revision %d after %d", len(c), w.view.Revision(), before)
			}
			if w.rnd.IntN(10) == 0 {
				rules := w.randomRules()
				w.rules = &rules
				if c := w.view.SetRules(rules); len(c) > 0 {
					w.t.Errorf("rules in the middle of a snapshot gave %d changes", len(c))
				}
			}
		}
	}
	if w.rnd.IntN(3) == 0 {
		list(1 + w.rnd.IntN(3))
		w.mutate()
	}
	list(0)
	w.synced, w.seen = true, maps.Clone(w.store)
	w.take("snapshot", w.view.Apply(Event{Type: Synced, Revision: w.now}))
	w.compare()
	if !w.view.Synced() || w.view.Revision() != w.now {
		w.t.Errorf("synced %t, revision %d, want %d", w.view.Synced(), w.view.Revision(), w.now)
	}
}

func (w *world) setRules() {
	rules := w.randomRules()
	w.rules = &rules
	w.take("rules", w.view.SetRules(rules))
	w.compare()
}

// take adds changes to what was told, and fails on one that is none or does not fit.
func (w *world) take(step string, changes []Change) {
	show := func(l *Lease) string {
		if l == nil {
			return "nothing"
		}
		return fmt.Sprintf("%+v", *l)
	}
	keys := map[string]bool{}
	for _, c := range changes {
		var before *Lease
		if l, ok := w.told[c.Name]; ok {
			before = &l
		}
		if show(c.Before) != show(before) {
			w.t.Errorf("%s: %s was told as %s, and the change says %s", step, c.Name, show(before), show(c.Before))
		}
		if show(c.Before) == show(c.After) || keys[c.Name] {
			w.t.Errorf("%s: %s: a change too many: %s to %s", step, c.Name, show(c.Before), show(c.After))
		}
		keys[c.Name] = true
		if c.After == nil {
			delete(w.told, c.Name)
		} else {
			w.told[c.Name] = *c.After
		}
	}
}

// randomRules changes what is enabled, the network, who we are, and what the backend takes.
func (w *world) randomRules() Rules {
	configs := []string{
		`"Network":"10.5.0.0/24","EnableIPv6":true,"IPv6Network":"fd00:5::/120"`,
		`"Network":"10.5.0.0/24","EnableIPv6":true,"IPv6Network":"fd00:5::/120"`,
		`"Network":"10.5.0.0/25"`,
		`"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/120"`,
		`"Network":"10.5.0.0/24","Backend":{"Type":"host-gw"}`,
	}
	r := Rules{
		Config:     mustConfig(w.t, "{"+configs[w.rnd.IntN(len(configs))]+"}"),
		InstanceID: []string{"i1", "i2"}[w.rnd.IntN(2)],
		PublicIPs:  [2]netip.Addr{ip("172.31.0.1"), ip("fd00:31::1")},
	}
	if w.rnd.IntN(4) == 0 {
		r.PublicIPs[IPv4] = ip("10.5.0.17") // inside the overlay
	}
	if w.rnd.IntN(3) > 0 {
		r.Underlay = []netip.Prefix{
			pfx("172.31.0.0/29"), pfx("10.5.0.0/16"), netip.PrefixFrom(randomAddr(w.rnd, "10.5.0.0/24"), 28+w.rnd.IntN(5)),
			pfx("fd00::/16"), netip.PrefixFrom(randomAddr(w.rnd, "fd00:5::/120"), 124+w.rnd.IntN(5)),
		}
	}
	unique, picky := w.rnd.IntN(4) > 0, w.rnd.IntN(2) == 0
	r.Check = func(l Lease) (things []string, err error) {
		// Few leases have none of these, and many have two: the chains are long.
		for _, f := range Families() {
			if data := l.Endpoints[f].Data; unique && data != "" {
				things = append(things, fmt.Sprintf("thing %s (%s)", data, f))
			}
		}
		if picky && l.NodeName == "unusable" {
			err = errors.New("the backend cannot use it")
		}
		return things, err
	}
	return r
}

// key returns a key in or about the network; some are malformed, outside, or too wide.
func (w *world) key() string {
	var subnets [2]netip.Prefix
	which := w.rnd.IntN(3)
	if which != 1 {
		subnets[IPv4] = netip.PrefixFrom(randomAddr(w.rnd, "10.5.0.0/24"), 25+w.rnd.IntN(6)).Masked()
	}
	if which != 0 {
		subnets[IPv6] = netip.PrefixFrom(randomAddr(w.rnd, "fd00:5::/120"), 122+w.rnd.IntN(5)).Masked()
	}
	switch w.rnd.IntN(20) {
	case 0:
		return "bad-" + FormatKey(subnets[:]...)
	case 1:
		return []string{"0.0.0.0-0", "10.6.0.0-26", "10.0.0.0-8", "fd00:5::-120"}[w.rnd.IntN(4)]
	}
	return FormatKey(subnets[:]...)
}

// value returns a lease's value; some are malformed, or bad in one of the ways that the rules know.
func (w *world) value() []byte {
	l := Lease{BackendType: "vxlan"}
	l.Endpoints[IPv4].PublicIP = randomAddr(w.rnd, "172.31.0.0/29")
	l.Endpoints[IPv6].PublicIP = randomAddr(w.rnd, "fd00:31::/125")
	for f := range l.Endpoints {
		l.Endpoints[f].Data = []string{"", "1", "2", "3", "4", "5"}[w.rnd.IntN(6)]
	}
	switch w.rnd.IntN(12) {
	case 0:
		return []byte("{")
	case 1:
		l.Endpoints[IPv4].PublicIP = ip("10.5.0.9")
	case 2:
		l.Endpoints[IPv6].PublicIP = ip("fe80::1")
	case 3:
		l.BackendType = "host-gw"
	case 4:
		l.NodeName = "unusable"
	case 5, 6:
		l.InstanceID = []string{"i1", "i2", "i3"}[w.rnd.IntN(3)]
	}
	b, err := l.Value()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}
