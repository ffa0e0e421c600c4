package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// A watch ends after a random time, so that the watches of a cluster are spread over the API servers, and over
	// time, after one of them was restarted.
	watchAtLeast = 5 * time.Minute
	// watchGrace is how much later than it should a server may end a watch.
	watchGrace = 30 * time.Second
	// initialEnd is the annotation of the bookmark that ends the initial events (metav1.InitialEventsAnnotationKey).
	initialEnd = "k8s.io/initial-events-end"
)

// watchFor returns how long a watch lasts.
func watchFor() time.Duration { return watchAtLeast + rand.N(watchAtLeast) }

// Watch reports what happens to the objects. It returns the first error of each, or why the watch has ended, never nil:
// [ErrEnded] after some five to ten minutes, [ErrExpired], [ErrRegressed], or a failure. It does not try again.
//
// A server that has not reached From sends nothing, not even bookmarks, until it has, and then what comes after. After
// a fault, From may be of a store that was restored from a backup since: see [ListOptions] for how to find out.
func (r Reader[T]) Watch(ctx context.Context, o WatchOptions, each func(EventOf[T]) error) error {
	c := r.client
	lasts := c.opts.watchFor()
	query := url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"},
		"timeoutSeconds": {strconv.Itoa(max(1, int(lasts/time.Second)))},
	}
	selectFields(query, o.Name, o.Fields)
	if o.From > 0 {
		query.Set("resourceVersion", strconv.FormatInt(o.From, 10))
	}
	if o.Initial {
		query.Set("sendInitialEvents", "true")
		query.Set("resourceVersionMatch", "NotOlderThan")
	}
	q := request{
		verb: "WATCH", method: http.MethodGet, path: r.resource.path(), query: query,
		accept: r.accept[1], lasts: lasts + watchGrace,
	}
	a, err := c.send(ctx, q)
	if err != nil {
		return noInitial(o, err)
	}
	defer a.Close()
	if o.Opened != nil {
		if err := o.Opened(a.identity()); err != nil {
			return err
		}
	}
	w := watch[T]{Reader: r, initial: o.Initial, last: o.From, store: a.identity()}
	for next := r.codec.frames(a); ; {
		kind, m, err := next()
		if err != nil && !errors.Is(err, ErrMalformed) {
			return c.watchEnded(ctx, q, err)
		}
		c.meter.answer("", 0)
		var event EventOf[T]
		if err == nil {
			event, err = w.event(kind, m)
		}
		if err != nil {
			c.meter.failed(ctx, q.verb)
			return fmt.Errorf("watch %s: %w", r.resource.path(), err)
		}
		if err := each(event); err != nil {
			return err
		}
	}
}

// noInitial returns the error for a watch that was rejected. A server without streaming lists finds the parameters
// invalid (422), or forbidden together (400).
func noInitial(o WatchOptions, err error) error {
	var e *Error
	if o.Initial && errors.As(err, &e) &&
		(e.Code == http.StatusUnprocessableEntity || e.Code == http.StatusBadRequest) {
		return fmt.Errorf("%w: %w", ErrNoInitial, err)
	}
	return err
}

// watchEnded returns why nothing more can be read of a watch.
func (c *Client) watchEnded(ctx context.Context, q request, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case err == io.EOF:
		return ErrEnded
	}
	c.meter.failed(ctx, q.verb)
	return c.explain(fmt.Errorf("watch %s: %w", q.path, err))
}

// watch is the state of a watch.
type watch[T any] struct {
	Reader[T]
	initial bool  // the initial events have not ended yet
	last    int64 // the highest version that was reported
	store   Identity
}

// event decodes an event.
func (w *watch[T]) event(kind string, m message) (e EventOf[T], err error) {
	switch kind {
	case "ADDED":
		e.Type = Added
	case "MODIFIED":
		e.Type = Modified
	case "DELETED":
		e.Type = Deleted
	case "BOOKMARK":
		return w.bookmark(m)
	case "ERROR":
		s := w.codec.status(m)
		return e, w.client.answered(s.code, s, w.client.vault.get())
	default:
		return e, fmt.Errorf("%w: event of type %q", ErrMalformed, shorten(kind))
	}
	e.Object = w.decode(m)
	o := w.object(&e.Object)
	if e.Version = o.Version; e.Version == 0 {
		return e, noVersion(fmt.Sprintf("%s of %q", kind, o.Name), o.Bad)
	}
	return e, w.reach(e.Version)
}

// noVersion returns the error for an event without a version. bad is what is wrong with its object; nil: nothing else.
func noVersion(what string, bad error) error {
	err := fmt.Errorf("%w: %s without a version", ErrMalformed, what)
	if bad != nil {
		err = fmt.Errorf("%w: %w", err, bad)
	}
	return err
}

// reach notes a version. Initial events come in any order.
func (w *watch[T]) reach(version int64) error {
	if w.initial {
		return nil
	}
	if version < w.last {
		return fmt.Errorf("%w: version %d after %d", ErrRegressed, version, w.last)
	}
	w.last = version
	return nil
}

// bookmark decodes a bookmark's object, which has nothing but a version, and perhaps an annotation.
func (w *watch[T]) bookmark(m message) (e EventOf[T], err error) {
	o := w.codec.metadata(newDecoder([]string{initialEnd}), m)
	e = EventOf[T]{Type: Bookmark, Version: o.Version}
	switch {
	case o.Version == 0:
		return e, noVersion("a bookmark", o.Bad)
	case w.initial && o.Annotations[initialEnd] != "true":
		// Kubernetes 1.26 and before ignore the parameter that they do not know.
		return e, fmt.Errorf("%w: a bookmark within the initial events", ErrNoInitial)
	case w.initial:
		e.Type, e.Store, w.initial = InitialEnd, w.store, false
	}
	return e, w.reach(e.Version)
}
