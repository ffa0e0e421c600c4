package etcd

import (
	"context"
	"errors"
	"maps"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/stats"

	"github.com/selvage-net/selvage/subnet"
)

// Health implements [subnet.HealthReporter].
func (s *Store) Health() subnet.Health { return s.meter.read() }

// meter is a [stats.Handler].
type meter struct {
	mu    sync.Mutex
	total subnet.Health
}

func newMeter() *meter {
	return &meter{total: subnet.Health{Requests: map[string]uint64{}, Failed: map[string]uint64{}}}
}

func (m *meter) read() subnet.Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.total
	t.Requests, t.Failed = maps.Clone(t.Requests), maps.Clone(t.Failed)
	return t
}

// rpc is one request or stream.
type rpc struct {
	method   string
	streams  bool // requests or answers, any number of them
	began    time.Time
	endpoint string
}

type rpcKey struct{}

// TagRPC implements stats.Handler.
func (m *meter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method := path.Base(info.FullMethodName)
	return context.WithValue(ctx, rpcKey{}, &rpc{
		method: method, began: time.Now(),
		streams: strings.HasSuffix(method, "Watch") || strings.HasSuffix(method, "KeepAlive"),
	})
}

// HandleRPC implements stats.Handler.
func (m *meter) HandleRPC(ctx context.Context, event stats.RPCStats) {
	r, ok := ctx.Value(rpcKey{}).(*rpc)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &m.total
	switch e := event.(type) {
	case *stats.Begin:
		t.Requests[r.method]++
	case *stats.OutHeader:
		if e.RemoteAddr != nil {
			r.endpoint = e.RemoteAddr.String()
		}
	case *stats.OutPayload:
		t.Sent += uint64(e.WireLength)
	case *stats.InPayload:
		t.Received += uint64(e.WireLength)
		t.Answers++
		t.LastContact = e.RecvTime
		if r.endpoint != "" {
			t.Endpoint = r.endpoint
		}
		if !r.streams {
			t.Latency = e.RecvTime.Sub(r.began)
		}
	case *stats.End:
		if e.Error != nil && !errors.Is(ctx.Err(), context.Canceled) { // which is how we end a stream ourselves
			t.Failed[r.method]++
		}
	}
}

// TagConn implements stats.Handler.
func (m *meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (m *meter) HandleConn(context.Context, stats.ConnStats) {}
