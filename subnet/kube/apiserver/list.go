package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxRestarts is how often a list begins again because the server has forgotten its version.
const maxRestarts = 3

// List reads all objects and passes them on in pages. It returns the version of the list. It ends with the first error
// of page. [ErrExpired] means that the server forgets versions faster than they are read.
func (r Reader[T]) List(ctx context.Context, o ListOptions, page func(PageOf[T]) error) (version int64, err error) {
	for try := 0; ; try++ {
		l := listing[T]{Reader: r, page: PageOf[T]{First: true}, pass: page}
		if err = l.read(ctx, o); err == nil {
			return l.page.Version, nil
		}
		if !errors.Is(err, ErrExpired) || o.Exactly > 0 || try == maxRestarts {
			return 0, err
		}
	}
}

// listing is one list.
type listing[T any] struct {
	Reader[T]
	page PageOf[T] // that is being read. Version 0: not known yet
	next string    // the token for the next request
	pass func(PageOf[T]) error
}

// read reads all pages.
func (l *listing[T]) read(ctx context.Context, o ListOptions) error {
	for {
		if err := l.request(ctx, l.query(o)); err != nil || l.next == "" {
			return err
		}
	}
}

// query returns the parameters for the next request.
func (l *listing[T]) query(o ListOptions) url.Values {
	q := url.Values{"limit": {strconv.Itoa(PageSize)}}
	selectFields(q, o.Name, o.Fields)
	switch {
	case l.next != "": // it holds the version
		q.Set("continue", l.next)
	case o.Exactly > 0:
		q.Set("resourceVersion", strconv.FormatInt(o.Exactly, 10))
		q.Set("resourceVersionMatch", "Exact")
	case o.NotOlderThan > 0:
		q.Set("resourceVersion", strconv.FormatInt(o.NotOlderThan, 10))
		q.Set("resourceVersionMatch", "NotOlderThan")
	case o.AnyVersion:
		q.Set("resourceVersion", "0")
		q.Set("resourceVersionMatch", "NotOlderThan")
	}
	return q
}

// selectFields restricts a list or a watch to the object of a name, and to what a field selector selects; empty: it
// does not.
func selectFields(q url.Values, name, fields string) {
	var terms []string
	if name != "" {
		terms = append(terms, "metadata.name="+name)
	}
	if fields != "" {
		terms = append(terms, fields)
	}
	if terms != nil {
		q.Set("fieldSelector", strings.Join(terms, ","))
	}
}

// identity returns what an answer says of the store.
func (a *answer) identity() Identity {
	h := a.response.Header
	return Identity{
		FlowSchema:    shorten(h.Get("X-Kubernetes-Pf-Flowschema-Uid")),
		PriorityLevel: shorten(h.Get("X-Kubernetes-Pf-Prioritylevel-Uid")),
	}
}

// request reads the answer to one request.
func (l *listing[T]) request(ctx context.Context, query url.Values) error {
	c := l.client
	r := request{verb: "LIST", method: http.MethodGet, path: l.resource.path(), query: query, accept: l.accept[0]}
	a, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer a.Close()
	l.next, l.page.Store = "", a.identity()
	var callee error
	err = l.codec.list(a, l.listKind, l.meta, func(m message) error {
		if l.page.Version == 0 {
			return fmt.Errorf("%w: a list without a version before its objects", ErrMalformed)
		}
		if l.page.Objects = append(l.page.Objects, l.decode(m)); len(l.page.Objects) == PageSize {
			callee = l.hand()
		}
		return callee
	})
	switch {
	case callee != nil:
		return callee
	case err == nil && l.page.Version == 0:
		err = fmt.Errorf("%w: a list without a version", ErrMalformed)
	}
	if err != nil {
		c.meter.failed(ctx, r.verb)
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return c.explain(fmt.Errorf("%s %s: %w", r.method, r.path, err))
	}
	if l.page.First || len(l.page.Objects) > 0 {
		return l.hand()
	}
	return nil
}

// hand passes a page on.
func (l *listing[T]) hand() error {
	p := l.page
	l.page.First, l.page.Objects = false, nil
	return l.pass(p)
}

// meta takes in a list's metadata.
func (l *listing[T]) meta(m listMeta) error {
	if l.page.Version != 0 && m.version != l.page.Version {
		return fmt.Errorf("%w: pages of versions %d and %d", ErrMalformed, l.page.Version, m.version)
	}
	l.page.Version, l.next = m.version, m.next
	return nil
}
