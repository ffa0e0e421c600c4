package apiserver

import (
	"context"
	"errors"
	"maps"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// meter keeps account of requests.
type meter struct {
	mu    sync.Mutex
	total subnet.Health
}

func newMeter() *meter {
	return &meter{total: subnet.Health{Requests: map[string]uint64{}, Failed: map[string]uint64{}}}
}

// Health returns the state of the connection and counters since New. The names of requests are "GET", "LIST" (each
// page), "WATCH", "PATCH" and "POST". Bytes are those of the connections, with TLS.
func (c *Client) Health() subnet.Health {
	c.meter.mu.Lock()
	defer c.meter.mu.Unlock()
	t := c.meter.total
	t.Requests, t.Failed = maps.Clone(t.Requests), maps.Clone(t.Failed)
	t.Sent, t.Received = c.connections.sent.Load(), c.connections.received.Load()
	return t
}

// began counts a request.
func (m *meter) began(verb string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Requests[verb]++
}

// answer counts an answer, or a message on a watch.
func (m *meter) answer(endpoint string, latency time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Answers++
	m.total.LastContact = time.Now()
	if endpoint != "" {
		m.total.Endpoint = endpoint
	}
	if latency > 0 {
		m.total.Latency = latency
	}
}

// failed counts a request that failed, unless the caller has ended it.
func (m *meter) failed(ctx context.Context, verb string) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Failed[verb]++
}

// traced returns a context that notes the address of the connection that a request is sent on.
func traced(ctx context.Context, to *endpoint) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		to.set(info)
	}})
}

// endpoint is HOST:PORT. A request that is sent again by net/http can set it while it is read.
type endpoint struct {
	mu   sync.Mutex
	text string
	used bool // by another request, before
}

func (e *endpoint) set(info httptrace.GotConnInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text, e.used = info.Conn.RemoteAddr().String(), info.Reused
}

func (e *endpoint) reused() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.used
}

func (e *endpoint) get() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text
}
