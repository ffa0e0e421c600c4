package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet/outage"
)

// Follower takes in the objects of a resource. Its methods are called from one goroutine.
type Follower[T any] interface {
	// Put takes in an object that is new or may have changed.
	Put(T)
	// Delete says that there is no object with this name and UID any more. If another one has the name by now, that is
	// Put afterwards.
	Delete(k Key, uid string)
	// Synced says that all objects have been Put, which are so many, and all that are gone were deleted. It is called
	// after each list, and after the changes of each watch event from then on.
	Synced(count int)
}

// Key names an object within a resource.
type Key struct{ Namespace, Name string }

// FollowOptions say how objects are followed.
type FollowOptions struct {
	Fields string // see [ListOptions]
	// ListSpread is over how long the lists of all nodes are spread after a fault that affects them all. The zero value
	// is none; see outage.Spread for what it means where there are many.
	ListSpread time.Duration
	// Absent says that the server need not have the resource, as it is with custom resources: there are no objects
	// then, and they are looked for again after at most this time. 0: a resource that is absent is a failure.
	Absent time.Duration
	// Withdraw has all objects reported as deleted at the end.
	Withdraw bool
	// Trouble gets each failure, and the end of the failures; nil: one that logs.
	Trouble Trouble
}

// Trouble takes note of failures, as [outage.Outage] does.
type Trouble interface {
	Failure(err error, kind string)
	Over()
}

const (
	followFirst = 100 * time.Millisecond
	followLast  = 10 * time.Second
	// followQuiet is how long a watch may be silent before it is replaced. A server sends a bookmark about once a
	// minute (k8s.io/apiserver, storage/cacher, bookmarkFrequency).
	followQuiet = 4 * time.Minute
	// followShort is a watch that ended too soon to count as one that worked.
	followShort = 10 * time.Second
	// followFew is up to how many objects are listed again after each fault, which answers all questions.
	followFew = 500
)

// errSilent means that a watch is dead while its connection lives.
var errSilent = errors.New("the watch is silent")

// Follow hands over all objects, and then what changes, until ctx ends; it returns nil then. No object is reported as
// deleted before a list is complete.
//
// After a fault it asks whether the server still has the history that was seen, as the store of the Nodes does: the
// object that changed last is read as it was then. Of few objects it reads the list again, which shows all that a store
// that was restored from a backup may have changed.
func (r Reader[T]) Follow(ctx context.Context, o FollowOptions, to Follower[T]) error {
	f := &following[T]{Reader: r, o: o, to: to, known: map[Key]string{}}
	if o.Withdraw {
		defer f.withdraw()
	}
	if f.o.Trouble == nil {
		f.o.Trouble = &outage.Outage{Log: r.client.opts.Log, Lost: "cannot watch " + r.resource.Name + "; retrying",
			Back: r.resource.Name + " are watched again"}
	}
	var again backoff.Backoff
	for {
		began := time.Now()
		err := f.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > followShort {
			again.Reset()
		}
		wait := again.Next(backoff.Policy{Min: followFirst, Max: followLast, Jitter: 0.5}, time.Now())
		switch {
		case errors.Is(err, errAnew):
			wait = max(wait, outage.Spread(o.ListSpread, len(f.known)))
		case o.Absent > 0 && absent(err):
			f.absent()
			wait = outage.Jitter(o.Absent)
		case !errors.Is(err, ErrEnded):
			f.o.Trouble.Failure(err, string(ProblemOf(err).Reason))
		}
		wait = max(wait, RetryAfter(err))
		if !outage.Sleep(ctx, wait) {
			return nil
		}
	}
}

// errAnew means that all objects have to be listed again.
var errAnew = errors.New("the API server does not have the history that was seen")

// following is one call of Follow.
type following[T any] struct {
	Reader[T]
	o  FollowOptions
	to Follower[T]

	known  map[Key]string   // the UID of each object
	listed map[Key]struct{} // of a list that is not complete yet
	fresh  bool             // the list was read without a stream, and no watch was accepted since
	missed bool             // the resource was absent the last time
	begun  bool             // a list was handed over
	seen   int64            // the version up to which all is known
	marks  []mark           // of what changed last and still exists, the last one at the end
}

// mark is an object, and the version at which it changed.
type mark struct {
	key     Key
	version int64
}

// markCount is of how many objects it is known when they changed. One would do if objects were never deleted: a
// deletion leaves nothing that a server could be asked for.
const markCount = 8

// step goes on from where f is until something breaks. It always returns an error.
func (f *following[T]) step(ctx context.Context) error {
	if f.begun && len(f.known) > followFew {
		return f.watch(ctx, WatchOptions{From: f.seen, Fields: f.o.Fields})
	}
	f.begun, f.listed, f.marks = false, map[Key]struct{}{}, nil
	err := f.watch(ctx, WatchOptions{Initial: true, Fields: f.o.Fields})
	if !errors.Is(err, ErrNoInitial) {
		return err
	}
	if err := f.list(ctx); err != nil {
		return err
	}
	return f.watch(ctx, WatchOptions{From: f.seen, Fields: f.o.Fields})
}

// check asks whether the server has the history that was seen. It is called once a watch was accepted: one that begins
// in the future of a store is silent, and the store may have been restored from a backup just before.
func (f *following[T]) check(ctx context.Context) error {
	if f.fresh && len(f.marks) == 0 { // an empty list
		o := ListOptions{NotOlderThan: f.seen, Fields: f.o.Fields}
		_, err := f.List(ctx, o, func(PageOf[T]) error { return nil })
		if errors.Is(err, ErrBehind) {
			return errAnew
		}
		return err
	}
	if len(f.marks) == 0 {
		f.begun = false
		return errAnew
	}
	last := f.marks[len(f.marks)-1]
	of, version := f.resource, int64(0)
	of.Namespace = last.key.Namespace
	o := ListOptions{Exactly: f.seen, Name: last.key.Name}
	_, err := f.client.List(ctx, of, o, func(p Page) error {
		for _, o := range p.Objects {
			version = o.Version
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrExpired), errors.Is(err, ErrBehind), err == nil && version != last.version:
		f.begun = false
		return errAnew
	case err != nil:
		return fmt.Errorf("read %s at version %d: %w", f.resource.Name, f.seen, err)
	}
	return nil
}

// list reads all objects without a stream.
func (f *following[T]) list(ctx context.Context) error {
	version, err := f.List(ctx, ListOptions{Fields: f.o.Fields}, func(p PageOf[T]) error {
		if p.First {
			clear(f.listed)
		}
		for i := range p.Objects {
			f.put(p.Objects[i])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", f.resource.Name, err)
	}
	f.complete(version)
	f.fresh = true
	return nil
}

// watch delivers what happens until something breaks. It always returns an error.
func (f *following[T]) watch(ctx context.Context, o WatchOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(f.client.opts.quiet, func() { cancel(errSilent) })
	defer silent.Stop()
	o.Opened = func(Identity) error {
		if o.Initial {
			return nil
		}
		err := f.check(ctx)
		if f.fresh = false; err == nil {
			f.o.Trouble.Over()
		}
		return err
	}
	err := f.Watch(ctx, o, func(e EventOf[T]) error {
		silent.Reset(f.client.opts.quiet)
		f.take(&e)
		return nil
	})
	switch {
	case context.Cause(ctx) == errSilent:
		return fmt.Errorf("watch %s: %w", f.resource.Name, errSilent)
	case errors.Is(err, ErrExpired):
		f.begun = false
		return errAnew
	}
	return err
}

// take takes in one event.
func (f *following[T]) take(e *EventOf[T]) {
	f.seen = max(f.seen, e.Version)
	switch e.Type {
	case Added, Modified:
		f.put(e.Object)
	case Deleted:
		o := f.object(&e.Object)
		k := Key{o.Namespace, o.Name}
		delete(f.listed, k)
		f.delete(k)
	case InitialEnd:
		f.complete(e.Version)
		return
	case Bookmark:
		return
	}
	if f.listed == nil {
		f.to.Synced(len(f.known))
	}
}

func (f *following[T]) put(object T) {
	o := f.object(&object)
	k := Key{o.Namespace, o.Name}
	if f.listed != nil {
		f.listed[k] = struct{}{}
	}
	if uid, ok := f.known[k]; !ok || o.UID != uid && o.UID != "" {
		if ok {
			f.delete(k)
		}
		f.known[k] = o.UID
	}
	f.mark(k, o.Version)
	f.to.Put(object)
}

func (f *following[T]) delete(k Key) {
	uid, ok := f.known[k]
	if !ok {
		return
	}
	delete(f.known, k)
	f.marks = slices.DeleteFunc(f.marks, func(m mark) bool { return m.key == k })
	f.to.Delete(k, uid)
}

// mark notes when an object has changed.
func (f *following[T]) mark(k Key, version int64) {
	if version == 0 || len(f.marks) == markCount && version < f.marks[0].version {
		return
	}
	f.marks = slices.DeleteFunc(f.marks, func(m mark) bool { return m.key == k })
	at, _ := slices.BinarySearchFunc(f.marks, version, func(m mark, v int64) int { return cmp.Compare(m.version, v) })
	f.marks = slices.Insert(f.marks, at, mark{k, version})
	if len(f.marks) > markCount {
		f.marks = slices.Delete(f.marks, 0, 1)
	}
}

// complete ends a list.
func (f *following[T]) complete(version int64) {
	for k := range f.known {
		if _, ok := f.listed[k]; !ok {
			f.delete(k)
		}
	}
	f.listed, f.begun, f.seen, f.missed = nil, true, version, false
	f.o.Trouble.Over()
	f.to.Synced(len(f.known))
}

// absent reports whether an error means that the server does not have the resource. It has no Status then, if the
// whole group is missing (apiserver, server/handler.go: http.NotFound).
func absent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == http.StatusNotFound
}

// absent notes that the server does not have the resource. Objects that are known are not forgotten at the first time:
// a server that starts may not know all custom resources yet (before Kubernetes 1.23).
func (f *following[T]) absent() {
	if len(f.known) > 0 && !f.missed {
		f.missed = true
		return
	}
	f.listed = nil
	f.complete(0)
}

// withdraw reports all objects as deleted.
func (f *following[T]) withdraw() {
	for k := range f.known {
		f.delete(k)
	}
	f.to.Synced(len(f.known))
}
