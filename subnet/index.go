package subnet

import "slices"

// index finds entries by something they have. Hardly anything is had by two, so what only one has costs a map entry and
// no more. The zero value is ready for use.
type index[K comparable] struct {
	one  map[K]*entry
	many map[K][]*entry // what two or more have
}

// add enters e under k, behind those that are there.
func (x *index[K]) add(k K, e *entry) {
	if at := x.many[k]; at != nil {
		x.many[k] = append(at, e)
		return
	}
	other := x.one[k]
	if other == nil {
		if x.one == nil {
			x.one = map[K]*entry{}
		}
		x.one[k] = e
		return
	}
	if x.many == nil {
		x.many = map[K][]*entry{}
	}
	x.many[k] = []*entry{other, e}
	delete(x.one, k)
}

// remove undoes add.
func (x *index[K]) remove(k K, e *entry) {
	at := x.many[k]
	if at == nil {
		if x.one[k] == e {
			delete(x.one, k)
		}
		return
	}
	if at = without(at, e); len(at) > 1 {
		x.many[k] = at
		return
	}
	delete(x.many, k)
	x.one[k] = at[0]
}

// each calls yield with every entry that has k, in their order, until it returns false.
func (x *index[K]) each(k K, yield func(*entry) bool) {
	if e := x.one[k]; e != nil {
		yield(e)
		return
	}
	for _, e := range x.many[k] {
		if !yield(e) {
			return
		}
	}
}

// lead puts e before all others that have k, or behind them.
func (x *index[K]) lead(k K, e *entry, front bool) { lead(x.many[k], e, front) }

// lead puts e, which is in at, before all others or behind them. So those that have what they claim come first, and a
// search for one of them does not walk the others, of which there can be any number.
func lead(at []*entry, e *entry, front bool) {
	if len(at) < 2 {
		return
	}
	i := slices.Index(at, e)
	if front {
		copy(at[1:], at[:i])
		at[0] = e
	} else {
		copy(at[i:], at[i+1:])
		at[len(at)-1] = e
	}
}

// without takes e out of at. It looks from the end, where the latest are.
func without(at []*entry, e *entry) []*entry {
	for i := len(at) - 1; i >= 0; i-- {
		if at[i] == e {
			return slices.Delete(at, i, i+1)
		}
	}
	return at
}
