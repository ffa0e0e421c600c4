package kube

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// balancer passes connections on to the servers that are up, in turn, as a load balancer before API servers does.
type balancer struct {
	net.Listener
	running sync.WaitGroup

	mu   sync.Mutex
	up   []string // HOST:PORT
	next int
}

// balance listens until the end of the test.
func balance(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l}
	b.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.running.Go(func() { b.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.running.Wait()
	})
	return b
}

// pass copies what is sent on a connection, in both directions, until one end closes it.
func (b *balancer) pass(c net.Conn) {
	defer c.Close()
	b.mu.Lock()
	if len(b.up) == 0 {
		b.mu.Unlock()
		return
	}
	b.next++
	to := b.up[b.next%len(b.up)]
	b.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, server)
		c.Close()
	})
	_, _ = io.Copy(server, c)
	server.Close()
	back.Wait()
}

func (b *balancer) set(up ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.up = up
}

// TestRollingRestart restarts three API servers behind one address, one after the other, as an upgrade does. No watcher
// loses a peer or takes the history for another one, each learns what is new, and each restart costs a few requests.
func TestRollingRestart(t *testing.T) {
	const watchers, nodes = 12, 20
	f := standIn(t, true)
	servers := []*kubetest.Server{f.standIn.Another(), f.standIn.Another(), f.standIn.Another()}
	address := func(s *kubetest.Server) string { return s.URL()[len("http://"):] }
	for _, s := range servers {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
	}
	b := balance(t)
	b.set(address(servers[0]), address(servers[1]), address(servers[2]))
	for i := range nodes {
		f.leased(t, fmt.Sprintf("node-%02d", i), fmt.Sprintf("10.244.%d.0/24", i))
	}
	f.api.URL = "http://" + b.Addr().String()
	var all []*storetest.Watcher
	for i := range watchers {
		w := storetest.Watch(t, f.open(t, fmt.Sprintf("node-%02d", i)), nil)
		if got := len(w.Synced(1).Leases); got != nodes {
			t.Fatalf("%d peers", got)
		}
		all = append(all, w)
	}
	f.api.URL = f.standIn.URL()
	count := func() (requests int) {
		for _, s := range servers {
			requests += len(s.Requests())
		}
		return requests
	}
	count()
	for i, s := range servers {
		b.set(address(servers[(i+1)%3]), address(servers[(i+2)%3]))
		s.EndWatches() // a server that stops in an orderly way
		s.Stop()
		down, up := fmt.Sprintf("down-%d", i), fmt.Sprintf("up-%d", i)
		f.leased(t, down, fmt.Sprintf("10.244.%d.0/24", 100+i))
		for _, w := range all {
			w.There(down)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		b.set(address(servers[0]), address(servers[1]), address(servers[2]))
		f.leased(t, up, fmt.Sprintf("10.244.%d.0/24", 200+i))
		for _, w := range all {
			w.There(up)
		}
		if got := count(); got > 6*watchers {
			t.Errorf("restart %d took %d requests of %d watchers", i, got, watchers)
		}
	}
	for _, w := range all {
		state := w.Now()
		for _, e := range state.Events {
			if len(e.Deleted) > 0 {
				t.Errorf("%q were deleted", e.Deleted)
			}
		}
		if state.Regressed > 0 || state.Synced != 1 || len(state.Leases) != nodes+6 {
			t.Errorf("%d snapshots, %d of another history, %d peers", state.Synced, state.Regressed, len(state.Leases))
		}
	}
}
