package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// maxRestarts is how often a list begins again because the server has forgotten its version.
const maxRestarts = 3

// metadataOnly are the parameters of a content type that ask for an object's, or a list's, metadata alone.
func metadataOnly(kind string) string { return protobuf + ";as=" + kind + ";g=meta.k8s.io;v=v1" }

// List reads the metadata of all objects of a resource and passes them on in pages. It returns the version of the list.
// It ends with the first error of page. [ErrExpired] means that the server forgets versions faster than they are read.
func (c *Client) List(
	ctx context.Context, r Resource, o ListOptions, page func(Page) error,
) (version int64, err error) {
	const kind = "PartialObjectMetadataList"
	decode := func(m message) Object { return c.decoder.object(m, nil) }
	return list(ctx, c, o, request{path: r.path(), accept: metadataOnly(kind)}, kind, decode,
		func(p pageOf[Object]) error { return page(Page{p.first, p.version, p.store, p.items}) })
}

// Nodes is [Client.List] for whole Nodes. It costs the server and the network five times as much.
func (c *Client) Nodes(ctx context.Context, o ListOptions, page func(NodePage) error) (version int64, err error) {
	return list(ctx, c, o, request{path: Nodes.path(), accept: protobuf}, "NodeList", c.decoder.node,
		func(p pageOf[Node]) error { return page(NodePage{p.first, p.version, p.items}) })
}

// pageOf is a part of a list.
type pageOf[T any] struct {
	first   bool  // no page has been passed on since the list began
	version int64 // 0: not known yet
	store   Identity
	items   []T
}

// listing is one list.
type listing[T any] struct {
	pageOf[T]
	next string // the token for the next request
	page func(pageOf[T]) error
}

// list reads a list.
func list[T any](ctx context.Context, c *Client, o ListOptions, r request, kind string, decode func(message) T,
	page func(pageOf[T]) error) (version int64, err error) {
	r.verb, r.method = "LIST", http.MethodGet
	for try := 0; ; try++ {
		l := listing[T]{pageOf: pageOf[T]{first: true}, page: page}
		if err = l.read(ctx, c, o, r, kind, decode); err == nil {
			return l.version, nil
		}
		if !errors.Is(err, ErrExpired) || o.Exactly > 0 || try == maxRestarts {
			return 0, err
		}
	}
}

// read reads all pages.
func (l *listing[T]) read(ctx context.Context, c *Client, o ListOptions, r request, kind string,
	decode func(message) T) error {
	for {
		r.query = l.query(o)
		if err := l.request(ctx, c, r, kind, decode); err != nil || l.next == "" {
			return err
		}
	}
}

// query returns the parameters for the next request.
func (l *listing[T]) query(o ListOptions) url.Values {
	q := url.Values{"limit": {strconv.Itoa(PageSize)}}
	selectName(q, o.Name)
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

// selectName restricts a list or a watch to the object of a name; empty: it does not.
func selectName(q url.Values, name string) {
	if name != "" {
		q.Set("fieldSelector", "metadata.name="+name)
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
func (l *listing[T]) request(ctx context.Context, c *Client, r request, kind string, decode func(message) T) error {
	a, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer a.Close()
	l.next, l.store = "", a.identity()
	var callee error
	err = newStream(a).list(kind, l.meta, func(m message) error {
		if l.version == 0 {
			return fmt.Errorf("%w: a list without a version before its objects", ErrMalformed)
		}
		if l.items = append(l.items, decode(m)); len(l.items) == PageSize {
			callee = l.pass()
		}
		return callee
	})
	switch {
	case callee != nil:
		return callee
	case err == nil && l.version == 0:
		err = fmt.Errorf("%w: a list without a version", ErrMalformed)
	}
	if err != nil {
		c.meter.failed(ctx, r.verb)
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return c.explain(fmt.Errorf("%s %s: %w", r.method, r.path, err))
	}
	if l.first || len(l.items) > 0 {
		return l.pass()
	}
	return nil
}

// pass hands a page on.
func (l *listing[T]) pass() error {
	p := l.pageOf
	l.first, l.items = false, nil
	return l.page(p)
}

// meta decodes a ListMeta.
func (l *listing[T]) meta(m message) error {
	var version int64
	err := m.each(func(f field) (err error) {
		switch f.number {
		case listMetaVersion:
			version, err = f.bytes.version()
		case listMetaContinue:
			l.next, err = f.bytes.text("continue token", maxMeta)
		}
		return err
	})
	if err == nil && l.version != 0 && version != l.version {
		err = fmt.Errorf("%w: pages of versions %d and %d", ErrMalformed, l.version, version)
	}
	l.version = version
	return err
}
