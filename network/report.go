package network

import "slices"

// Count is the number of objects of one kind, by state.
type Count struct {
	Wanted   int
	Present  int  // in sync with what is desired; or selvage's own, and desired by no owner
	Pending  int  // desired, and missing or different
	Unwanted int  // selvage's own, and desired by no owner: to be removed, see [Reconciler.KeepUnwanted]
	Optional bool // traffic does not depend on them
}

// Kinds returns the names of the kinds of kernel objects in the order in which they are set: "vtep", "link", "bridge",
// "port", "wireguard", "wireguard-peer", "allowed-ip", "address", "fdb", "neighbour", "nexthop", "route", "sysctl",
// "fast-peer" and "program".
func Kinds() (names []string) {
	for _, k := range NewTables().kinds {
		names = append(names, k.kindName())
	}
	return names
}

// Counts counts the objects of each kind; the keys are those of [Kinds].
func (t *Tables) Counts() map[string]Count {
	counts := make(map[string]Count, len(t.kinds))
	for _, k := range t.kinds {
		counts[k.kindName()] = k.Counts()
	}
	return counts
}

// Pending is the number of objects that differ, of all kinds: those that are desired, and those that are to be removed.
func (t *Tables) Pending() (n int) {
	for _, k := range t.kinds {
		n += k.PendingCount()
	}
	return n
}

// Holds reports whether the kernel holds every object of a state on which traffic depends, as far as the tables know.
// Where several owners want one object, it can be another owner's.
func (t *Tables) Holds(s State) bool {
	kind, _ := t.Lacks(s)
	return kind == ""
}

// Lacks names the first object of a state, in the order of [Kinds], that the kernel does not hold as the state says:
// its kind and its key. Both are empty if it holds all. Objects on which no traffic depends do not count.
func (t *Tables) Lacks(s State) (kind, key string) {
	for _, k := range t.kinds {
		if k.Counts().Optional {
			continue
		}
		if key, found := k.missing(&s); found {
			return k.kindName(), key
		}
	}
	return "", ""
}

// PendingOwners returns the names of the owners who want an object that is pending. It costs O(what differs).
func (t *Tables) PendingOwners() map[string]struct{} {
	names := map[string]struct{}{}
	for _, k := range t.kinds {
		k.pendingOwners(names)
	}
	return names
}

// Unwanted names every object that is selvage's own and desired by no owner, such as "route 10.5.29.0/24", in the order
// in which they would be removed.
func (t *Tables) Unwanted() (names []string) {
	for _, k := range slices.Backward(t.kinds) {
		for _, key := range k.unwanted() {
			names = append(names, k.kindName()+" "+key)
		}
	}
	return names
}

// Comparison is one object of a state beside the kernel's, as commands for people to read, see [State.Commands].
type Comparison struct {
	Kind    string // as in [Kinds]
	Desired []string
	Actual  []string // empty if the kernel holds nothing in its place
	InSync  bool
}

// Compare compares every object of a state with the kernel's, as far as the tables know: routes first, as a packet
// meets them, so in the reverse order of [Kinds].
func (t *Tables) Compare(s State) (all []Comparison) {
	for _, k := range slices.Backward(t.kinds) {
		all = append(all, k.compare(&s)...)
	}
	return all
}
