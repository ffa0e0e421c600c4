package network

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// kind is one kind of kernel object: what tells it apart from the other kinds. Whatever is done to every kind is a loop
// over the list that [NewTables] makes, in the order in which objects are set; they are removed in reverse.
//
// The hooks from ready on are for special cases; nil stands for none.
type kind[K, V comparable] struct {
	// name is the kind's name in the results of a pass, the status and the metrics.
	name string
	// items returns a state's objects of this kind.
	items func(*State) []Item[K, V]
	// command returns the commands that would set an object, one a line, see [State.Commands].
	command func(K, V) string
	// ours reports whether an object that no owner wants is selvage's own and has to be removed; nil: none ever is.
	ours func(K, V) bool
	// link returns the device that an object is on, or leads out of. The object is set only when that device is ready,
	// and vanishes with it, without a notification of its own. nil: objects are on no device.
	link func(K, V) string
	// optional: traffic does not depend on objects of this kind.
	optional bool
	// nexthop says the same of a nexthop object that an object goes by; 0: none. nil: objects go by no nexthop object.
	nexthop func(K, V) NexthopID
	// late: objects of this kind are set and removed only when nothing that traffic depends on was, for this long, or if
	// there is always something, after four times as long. Each change of theirs takes the kernel milliseconds, in which
	// others wait.
	late time.Duration

	// ready reports whether an object can be set now, if it needs more than its device and its nexthop object.
	ready func(K) bool
	// used reports whether other objects still rest on one that no owner wants: it is kept until they are gone.
	used func(K) bool
	// before is called before a pass sets objects of this kind, to set what they need of a kind later in the list.
	before func(*pass)
	wasSet func(*pass, K, V)
	// few returns the keys of the objects on a device if they are few, and indexed; nil: they never are.
	few func(link string) (keys map[K]struct{}, ok bool)
	// claimed is called after every change of what is desired.
	claimed func()
	// changed is called after every change on either side of a key.
	changed func(K)
	// observed is called when the actual object has changed, with the old and the new one; the zero value stands for
	// none.
	observed func(before, now V)
}

// objects is a [Table] whose types of key and value do not matter: an element of the list of kinds.
type objects interface {
	desired
	actual
	counted
	applied
}

// desired is what owners want.
type desired interface {
	replace(o *Owner, last, next *State)
	grow(n int, like *State)
	pendingOwners(names map[string]struct{})
	missing(*State) (key string, found bool) // the first object of a state that the kernel does not hold as it says
}

// actual is what the kernel holds: what becomes of objects when something happens to what they rest on.
type actual interface {
	linkGone(link string)
	countOn(link string) int
	nexthopsGone(ids map[NexthopID]struct{})
	ownershipChanged()
	retryOn(link string)
}

// counted is the table's part in reports.
type counted interface {
	kindName() string
	Counts() Count
	PendingCount() int
	unwanted() []string // the keys to remove, sorted
	compare(*State) []Comparison
	commands(*State) []string
}

// applied is the table's part in a pass.
type applied interface {
	set(*pass)
	remove(*pass)
	expireRetries(now time.Time)
}

// add appends a kind to the list.
func add[K, V comparable](t *Tables, k kind[K, V]) *Table[K, V] {
	table := newTable(k)
	table.tables = t
	t.kinds = append(t.kinds, table)
	return table
}

func (t *Table[K, V]) kindName() string { return t.kind.name }

func (t *Table[K, V]) replace(o *Owner, last, next *State) {
	was, items := t.kind.items(last), t.kind.items(next)
	for _, x := range items {
		t.want(o, x.Key, x.Value)
	}
	for _, x := range was {
		if !slices.ContainsFunc(items, func(y Item[K, V]) bool { return y.Key == x.Key }) {
			t.Unwant(o.Name, x.Key)
		}
	}
}

func (t *Table[K, V]) missing(s *State) (key string, found bool) {
	for _, x := range t.kind.items(s) {
		if c := t.Get(x.Key); !c.Present || c.Have != x.Value {
			return fmt.Sprint(x.Key), true
		}
	}
	return "", false
}

func (t *Table[K, V]) pendingOwners(names map[string]struct{}) {
	for k := range t.dirty {
		c := t.cells[k]
		if !c.wanted() {
			continue
		}
		names[c.owner.Name] = struct{}{}
		for _, x := range c.others() {
			names[x.owner.Name] = struct{}{}
		}
	}
}

// linkGone is O(1) if nothing is on the device, as a rule for one that is not selvage's.
func (t *Table[K, V]) linkGone(link string) {
	if t.countOn(link) == 0 {
		return
	}
	if t.kind.few != nil {
		if keys, few := t.kind.few(link); few {
			for k := range keys {
				t.ObserveGone(k)
			}
			return
		}
	}
	t.cascadeGone(func(k K, v V) bool { return t.kind.link(k, v) == link })
}

// countOn is the number of actual objects on a device.
func (t *Table[K, V]) countOn(link string) int { return int(t.on[link]) }

// countLink keeps that number up to date: now replaces before; a nil pointer stands for none.
func (t *Table[K, V]) countLink(k K, before, now *V) {
	if t.kind.link == nil {
		return
	}
	var a, b string
	if before != nil {
		a = t.kind.link(k, *before)
	}
	if now != nil {
		b = t.kind.link(k, *now)
	}
	if a != b {
		count(t.on, a, b)
	}
}

func (t *Table[K, V]) nexthopsGone(ids map[NexthopID]struct{}) {
	if t.kind.nexthop != nil {
		t.cascadeGone(func(k K, v V) bool {
			_, gone := ids[t.kind.nexthop(k, v)]
			return gone
		})
	}
}

func (t *Table[K, V]) ownershipChanged() {
	if t.kind.link != nil {
		t.recheck()
	}
}

func (t *Table[K, V]) retryOn(link string) {
	if t.kind.link != nil {
		t.retrySoonWhere(func(k K, v V) bool { return t.kind.link(k, v) == link })
	}
}

func (t *Table[K, V]) unwanted() (keys []string) {
	for k := range t.dirty {
		if !t.cells[k].wanted() {
			keys = append(keys, fmt.Sprint(k))
		}
	}
	slices.Sort(keys)
	return keys
}

func (t *Table[K, V]) compare(s *State) (all []Comparison) {
	commands := func(k K, v V) []string { return strings.Split(t.kind.command(k, v), "\n") }
	for _, x := range t.kind.items(s) {
		c := t.Get(x.Key)
		o := Comparison{Kind: t.kind.name, Desired: commands(x.Key, x.Value), InSync: c.Present && c.Have == x.Value}
		if c.Present {
			o.Actual = commands(x.Key, c.Have)
		}
		all = append(all, o)
	}
	return all
}

// isUsed reports whether an object that no owner wants is kept for now.
func (t *Table[K, V]) isUsed(k K, have V) bool {
	x := &t.kind
	return x.used != nil && x.used(k) || x.link != nil && t.tables.mayBeRenamed(x.link(k, have))
}

// isReady reports whether all that an object rests on is there.
func (t *Table[K, V]) isReady(k K, v V) bool {
	x := &t.kind
	return (x.link == nil || t.tables.linkReady(x.link(k, v))) &&
		(x.nexthop == nil || t.tables.nexthopReady(x.nexthop(k, v))) &&
		(x.ready == nil || x.ready(k))
}

func (t *Table[K, V]) commands(s *State) (commands []string) {
	for _, x := range t.kind.items(s) {
		commands = append(commands, strings.Split(t.kind.command(x.Key, x.Value), "\n")...)
	}
	return commands
}
