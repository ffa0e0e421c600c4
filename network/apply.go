package network

import "errors"

// ErrForeign means that an object that is not selvage's, and must not be touched, is in the place of a desired one.
var ErrForeign = errors.New("in use by something that is not selvage's")

// errNoApply means that no function is registered to change objects of the kind.
var errNoApply = errors.New("this build cannot change objects of this kind")

// Update is one change to make in a batch.
type Update[K, V comparable] struct {
	Key    K
	Change Change[V]
	Err    error // why it could not be made

	repair bool   // it has been in sync before
	by     string // the process that changed it
}

// batchSize is the largest number of updates in a batch. A larger batch is not faster, and takes more memory.
const batchSize = 128

// ApplyBatch registers how a pass changes the kernel's objects of this kind. f makes the updates of a batch in their
// order, each to the object that the change wants, or none if none is desired, and sets Err where it could not. It is
// idempotent: to set what is set, or to remove what is gone, is no error.
//
// f does not change the tables: the pass does, from what f returns. The kernel's notifications in the meantime are
// processed after the pass, or by [Reconciler.Drain].
func (t *Table[K, V]) ApplyBatch(f func([]Update[K, V])) { t.apply = f }

// ApplyEach does the same for a kind with few objects, whose changes are made one by one. Each is the change that the
// table asks for by then: an earlier one can have had effects on it.
func (t *Table[K, V]) ApplyEach(f func(K, Change[V]) error) {
	t.apply = func(batch []Update[K, V]) {
		for i := range batch {
			u := &batch[i]
			u.Change = t.Get(u.Key)
			u.Err = f(u.Key, u.Change)
		}
	}
}

// LinkEffects is what a change of a device did to the objects on it: the kernel notifies of the device only.
type LinkEffects struct {
	Deleted     bool   // the device was deleted, for good or to recreate it: all objects on it are gone
	RenamedFrom string // its name before: all objects on it have moved to the new name; empty: it was not renamed
	FDBFlushed  bool   // its forwarding database is empty
}

// ApplyLinks registers how a pass changes devices, as [Table.ApplyEach] does. f returns the effects of the change on
// other objects. They count even if there is an error: a device may have been deleted that could not be recreated.
func (t *Tables) ApplyLinks(f func(name string, c Change[Link]) (LinkEffects, error)) {
	t.Links.ApplyEach(func(name string, c Change[Link]) error {
		effects, err := f(name, c)
		if effects.Deleted {
			t.LinkGone(name)
		}
		if effects.RenamedFrom != "" {
			t.LinkGone(effects.RenamedFrom)
		}
		if effects.FDBFlushed {
			t.FDBGone(name)
		}
		return err
	})
}

// cannotApply is the apply function of a table without a registered one.
func cannotApply[K, V comparable](batch []Update[K, V]) {
	for i := range batch {
		batch[i].Err = errNoApply
	}
}
