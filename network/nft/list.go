package nft

import "slices"

// List holds the elements of a set, and changes in place. It remembers the last changes, so that a [Mirror] brings the
// set in sync by these alone: that takes as long for a large set as for a small one.
//
// A List belongs to one set, without ranges, of one table. It is not safe for concurrent use. The zero value is empty.
type List struct {
	elements []Element    // in normal form
	version  uint64       // how many elements were added and removed
	log      []listChange // the last of them
}

// listChange is one element that was added or removed.
type listChange struct {
	element Element
	added   bool
}

const (
	// fewChanges is how many elements are added and removed in place. More are merged into a new list.
	fewChanges = 8
	// maxLog bounds the log, beyond the size of the list: then to replace all elements is less.
	maxLog = 1024
)

// Elements returns the elements, in the order of their keys; none of a nil List. The next change makes them invalid.
func (l *List) Elements() []Element {
	if l == nil {
		return nil
	}
	return l.elements
}

// Change removes elements and then adds others. What is not there is not removed, and what is there is not added again.
func (l *List) Change(add, remove []Element) {
	if len(add)+len(remove) > fewChanges {
		l.merge(add, remove)
	} else {
		for _, e := range remove {
			if i, found := l.find(e); found {
				l.note(l.elements[i], false)
				l.elements = slices.Delete(l.elements, i, i+1)
			}
		}
		for _, e := range add {
			switch i, found := l.find(e); {
			case !found:
				l.elements = slices.Insert(l.elements, i, e)
				l.note(e, true)
			case l.elements[i] != e:
				l.note(l.elements[i], false)
				l.elements[i] = e
				l.note(e, true)
			}
		}
	}
	if len(l.log) > len(l.elements)+maxLog {
		l.log = nil
	}
}

func (l *List) find(e Element) (int, bool) {
	return slices.BinarySearchFunc(l.elements, e, Element.compare)
}

func (l *List) note(e Element, added bool) {
	l.log = append(l.log, listChange{e, added})
	l.version++
}

// merge is Change for many elements.
func (l *List) merge(add, remove []Element) {
	out := make(map[string]bool, len(remove))
	for _, e := range remove {
		out[e.Key] = true
	}
	have := slices.Clone(l.elements)
	have = slices.DeleteFunc(have, func(e Element) bool { return out[e.Key] })
	add = normal(add)
	merged := make([]Element, 0, len(have)+len(add))
	for len(have) > 0 && len(add) > 0 {
		switch c := have[0].compare(add[0]); {
		case c < 0:
			merged, have = append(merged, have[0]), have[1:]
		case c > 0:
			merged, add = append(merged, add[0]), add[1:]
		default:
			have = have[1:]
		}
	}
	merged = append(append(merged, have...), add...)
	added, removed := difference(merged, l.elements)
	for _, e := range removed {
		l.note(e, false)
	}
	for _, e := range added {
		l.note(e, true)
	}
	l.elements = merged
}

// since returns what was added to the list since a version, and removed from it. An element that has another verdict is
// both. ok is false if the log does not go back so far.
func (l *List) since(version uint64) (add, remove []Element, ok bool) {
	back := l.version - version
	if version > l.version || back > uint64(len(l.log)) {
		return nil, nil, false
	}
	type state struct{ before, after *Element } // nil: absent
	states := map[string]*state{}
	var keys []string
	for i := range l.log[len(l.log)-int(back):] {
		c := &l.log[len(l.log)-int(back)+i]
		s := states[c.element.Key]
		if s == nil {
			s = &state{}
			if !c.added {
				s.before = &c.element
			}
			states[c.element.Key] = s
			keys = append(keys, c.element.Key)
		}
		if s.after = nil; c.added {
			s.after = &c.element
		}
	}
	for _, key := range keys {
		s := states[key]
		if s.before != nil && s.after != nil && *s.before == *s.after {
			continue
		}
		if s.before != nil {
			remove = append(remove, *s.before)
		}
		if s.after != nil {
			add = append(add, *s.after)
		}
	}
	return add, remove, true
}

// forget forgets the changes so far: the kernel has them.
func (l *List) forget() { l.log = l.log[:0] }

// elements returns the desired elements of a set.
func (s Set) elements() []Element {
	if s.List != nil {
		return s.List.elements
	}
	return s.Elements
}
