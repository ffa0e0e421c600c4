package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

const (
	protobuf = "application/vnd.kubernetes.protobuf"
	jsonType = "application/json"
)

// errTimeout is the cause with which a request is cancelled that takes too long.
var errTimeout = errors.New("no answer in time")

// retryPolicy spaces the attempts at a request that an overloaded server rejects. A node is one of thousands.
var retryPolicy = backoff.Policy{Min: 200 * time.Millisecond, Max: 10 * time.Second, Jitter: 0.5}

// request is one to the API.
type request struct {
	verb   string // for the counters
	method string
	path   string
	query  url.Values
	accept string
	body   []byte
	sends  string // content type of body
	lasts  time.Duration
}

// answer is a successful one. Its body is read through Read, and each read has to be answered in time.
type answer struct {
	response *http.Response

	body     io.ReadCloser
	deadline *time.Timer
	every    time.Duration // how long a Read may take; 0: until deadline
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

// Read implements [io.Reader].
func (a *answer) Read(b []byte) (int, error) {
	if a.every > 0 {
		a.deadline.Reset(a.every)
	}
	n, err := a.body.Read(b)
	if err != nil && err != io.EOF && errors.Is(context.Cause(a.ctx), errTimeout) {
		err = errTimeout
	}
	return n, err
}

// Close ends the request. net/http needs an answer to be read to its end, to use the connection of HTTP/1.1 again.
func (a *answer) Close() {
	a.deadline.Stop()
	a.cancel(nil)
	a.body.Close()
}

// send sends a request, again if the server is overloaded or our token has been replaced, and returns a successful
// answer.
func (c *Client) send(ctx context.Context, r request) (*answer, error) {
	var (
		again     backoff.Backoff
		renewed   bool
		reconnect bool
		end       = time.Now().Add(c.opts.RequestTimeout)
	)
	for {
		used := c.vault.get()
		c.replaced(used)
		a, err := c.attempt(ctx, r, used)
		var e *Error
		switch {
		case err == nil:
			return a, nil
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, ctx.Err()
		case !errors.As(err, &e):
			return nil, err
		case e.Code == http.StatusUnauthorized && !renewed && c.vault.renew(used):
			renewed = true
			continue
		case e.stale && !reconnect && r.method == http.MethodGet:
			reconnect = true
			continue
		case !e.passes():
			if broken := c.vault.failure(); e.Code == http.StatusUnauthorized && broken != nil {
				e.err = fmt.Errorf("%w; %w", e.err, broken) // what was sent was read before
			}
			return nil, err
		}
		wait := again.Next(retryPolicy, time.Now())
		if e.RetryAfter > 0 { // which is the same for all who are rejected
			wait = max(wait, e.RetryAfter+rand.N(e.RetryAfter))
		}
		if time.Now().Add(wait).After(end) || !outage.Sleep(ctx, wait) {
			return nil, err
		}
	}
}

// passes reports whether the server wants to be asked again soon: it is overloaded, or cannot serve now and says when
// it can. Other failures are left to the caller's backoff.
func (e *Error) passes() bool {
	if errors.Is(e, ErrBehind) {
		return false // it has waited already
	}
	return e.Code == http.StatusTooManyRequests || e.Code >= http.StatusInternalServerError && e.RetryAfter > 0
}

// replaced closes all connections once our certificate, or the server's authorities, have been replaced: a connection
// is of the user, and to the server, of its handshake.
func (c *Client) replaced(now credentials) {
	c.mu.Lock()
	changed := c.shown != nil && !bytes.Equal(c.shown, now.raw)
	c.shown = now.raw
	c.mu.Unlock()
	if changed {
		c.connections.closeAll()
	}
}

// attempt sends a request once.
func (c *Client) attempt(ctx context.Context, r request, used credentials) (a *answer, err error) {
	c.meter.began(r.verb)
	limited, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.opts.RequestTimeout, func() { cancel(errTimeout) })
	defer func() {
		if err != nil {
			timer.Stop()
			cancel(nil)
			c.meter.failed(ctx, r.verb)
		}
	}()
	var from endpoint
	target := c.config.url.String() + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	hr, err := http.NewRequestWithContext(traced(limited, &from), r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	hr.Header.Set("Accept", r.accept)
	hr.Header.Set("Accept-Encoding", "identity") // to compress costs the server more than it spares a near network
	hr.Header.Set("User-Agent", c.opts.UserAgent)
	if r.sends != "" {
		hr.Header.Set("Content-Type", r.sends)
	}
	if used.token != "" {
		hr.Header.Set("Authorization", "Bearer "+used.token)
	}
	began := time.Now()
	response, err := c.transport.RoundTrip(hr)
	if err != nil {
		if errors.Is(context.Cause(limited), errTimeout) {
			err = fmt.Errorf("%w: %w", errTimeout, err)
		}
		err = c.explain(fmt.Errorf("%s %s: %w", r.method, r.path, err))
		if e := (*Error)(nil); errors.As(err, &e) {
			e.stale = e.Reason == subnet.ReasonDisconnected && from.reused()
		}
		return nil, err
	}
	took := time.Since(began)
	if r.lasts > 0 {
		took = 0
	}
	c.meter.answer(from.get(), took)
	a = &answer{response: response, body: response.Body, deadline: timer, ctx: limited, cancel: cancel}
	if r.lasts > 0 {
		timer.Reset(r.lasts)
	} else {
		a.every = c.opts.RequestTimeout
	}
	if response.StatusCode/100 != 2 {
		defer a.Close()
		text, err := io.ReadAll(io.LimitReader(a, maxStatus))
		if err != nil && len(text) == 0 {
			text = []byte(response.Status)
		}
		e := c.answered(response.StatusCode, readStatus(response.Header, text), used)
		e.answer = response
		return nil, e
	}
	want, _, _ := mime.ParseMediaType(r.accept)
	if got, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || got != want {
		a.Close()
		return nil, &Error{Reason: subnet.ReasonOther, advice: "something other than an API server answers at " +
			c.config.url.String() + ": check its URL", err: fmt.Errorf("%w: %s %s: content type %q, want %q",
			ErrMalformed, r.method, r.path, response.Header.Get("Content-Type"), want)}
	}
	return a, nil
}

// small sends a request whose answer is one object, and returns that.
func (c *Client) small(ctx context.Context, r request) ([]byte, error) {
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	body, err := io.ReadAll(io.LimitReader(a, MaxObject+1))
	if err == nil && len(body) > MaxObject {
		err = fmt.Errorf("%w: %s %s: more than %d bytes", ErrMalformed, r.method, r.path, MaxObject)
	}
	if err != nil {
		c.meter.failed(ctx, r.verb)
		return nil, c.explain(err)
	}
	return body, nil
}
