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
)

// Traffic is what has passed between a [Store] and etcd.
type Traffic struct {
	Requests      map[string]uint64 // by method, such as "Txn"; a watch or a keep-alive stream counts once
	Failed        map[string]uint64 // of Requests: those that ended in an error, and not because we ended them
	SentBytes     uint64            // as they went over the wire
	ReceivedBytes uint64
	Answers       uint64        // to requests and on streams
	LastContact   time.Time     // when etcd last answered anything; zero: never
	Endpoint      string        // the address of the connection on which that came
	Latency       time.Duration // of the latest request that was answered and was no stream
}

// Traffic returns what has passed by now.
func (s *Store) Traffic() Traffic { return s.meter.read() }

// meter is a [stats.Handler].
type meter struct {
	mu    sync.Mutex
	total Traffic
}

func newMeter() *meter {
	return &meter{total: Traffic{Requests: map[string]uint64{}, Failed: map[string]uint64{}}}
}

func (m *meter) read() Traffic {
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
		method: method, began: time.Now(), streams: strings.HasSuffix(method, "Watch") || strings.HasSuffix(method, "KeepAlive"),
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
		t.SentBytes += uint64(e.WireLength)
	case *stats.InPayload:
		t.ReceivedBytes += uint64(e.WireLength)
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
