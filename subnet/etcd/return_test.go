package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// watched waits until etcd, since its restart, serves a watch again.
func watched(t *testing.T, etcd *etcdserver.Server) map[string]int {
	t.Helper()
	var counts map[string]int
	testctx.Eventually(t, func() string {
		if counts = handled(t, etcd); counts["Watch"] == 0 {
			return "another watch"
		}
		return ""
	})
	return counts
}

// TestReturnIsCheap: what a node asks of an etcd that is back. All nodes do so in the same moment.
func TestReturnIsCheap(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	o.LeaseTTL = DefaultLeaseTTL // a renewal is not due
	var written atomic.Int32
	o.dial = append(o.dial, grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any,
		conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := next(ctx, method, req, reply, conn, opts...)
		if method == pb.KV_Txn_FullMethodName {
			written.Add(1)
		}
		return err
	}))
	c.Write(t, "config", "{}")
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	h.change(lease(1, "b"))
	w.Until(func(s storetest.State) string { // then Hold has nothing to do for hours
		if s.Leases[r.Name].InstanceID != "b" {
			return "our own change"
		}
		return ""
	})
	// Perhaps it looks at our own key, which was seen to change. It takes another change when it is done with that.
	testctx.Eventually(t, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		for x := range s.holds {
			if len(x.changed) > 0 {
				return "the look at our own key"
			}
		}
		return ""
	})
	before := written.Load()
	h.change(lease(1, "b"))
	testctx.Eventually(t, func() string {
		if written.Load() == before {
			return "the answer to a change that is none"
		}
		return ""
	})

	restart(t, etcd)
	if got, want := watched(t, etcd), (map[string]int{"Txn": 1, "Watch": 1}); !maps.Equal(got, want) {
		t.Errorf("a return to the history that we know takes %v, want %v", got, want)
	}
	h.held()

	wipe(t, etcd, "")
	got := watched(t, etcd)
	h.lost()
	// The check, the list, and a look at our own key, which the list shows to be gone.
	delete(got, "Range")
	if want := (map[string]int{"Txn": 2, "Watch": 1}); !maps.Equal(got, want) {
		t.Errorf("a return to nothing takes %v, want %v", got, want)
	}
}

func TestListsAreSpreadOnlyWhenTheHistoryIsGone(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	c.Write(t, "config", "{}")
	log, kept := logger(t)
	o.Log, o.ListSpread = log, 100*24*time.Hour // so that none comes by chance
	w := storetest.Watch(t, open(t, o), nil)
	o.ListSpread, o.Log = time.Second, nil
	soon := storetest.Watch(t, open(t, o), nil)
	w.Synced(1) // at once
	soon.Synced(1)
	wipe(t, etcd, "")
	untilSaid(t, kept, "wiped or restored")
	// The other one shows that there is something to list.
	if state := soon.Synced(2); state.Regressed != 1 {
		t.Errorf("%d of %d snapshots are of another history", state.Regressed, state.Synced)
	}
	if state := w.Now(); state.Synced != 1 {
		t.Errorf("%d snapshots: the second did not wait", state.Synced)
	}
	if err := w.Stop(); err != nil { // it ends all the same
		t.Errorf("Watch returned %v", err)
	}
	if said := kept.said("wiped or restored"); len(said) != 1 {
		t.Errorf("said %q", said)
	}
}

func TestOwnLeaseDoesNotWaitForTheList(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	c.Write(t, "config", "{}")
	o.LeaseTTL, o.ListSpread, o.turn = DefaultLeaseTTL, time.Minute, 6*time.Second
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	w.There(r.Name)
	wipe(t, etcd, "")
	h.lost()
	again, err := s.Claim(t.Context(), &r, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if state := w.Now(); state.Synced != 1 {
		t.Error("the list came before")
	}
	startHold(t, s, again).held()
	if state := w.Synced(2); state.Regressed != 1 || state.Leases[r.Name].LeaseID != again.LeaseID {
		t.Errorf("%d of %d snapshots are of another history, the lease is %+v", state.Regressed, state.Synced, state.Leases[r.Name])
	}
}

func TestSpread(t *testing.T) {
	if got := (Options{ListSpread: -1}).spread(5000); got != 0 {
		t.Errorf("none is %s", got)
	}
	seen, more := map[bool]bool{}, map[time.Duration]bool{}
	for range 1000 {
		got := Options{ListSpread: time.Second}.spread(outage.SpreadLeases / 2)
		if got < 0 || got >= time.Second {
			t.Errorf("up to a second is %s", got)
		}
		seen[got < time.Second/2] = true
		more[Options{ListSpread: time.Second}.spread(5*outage.SpreadLeases)/time.Second] = true
	}
	if len(seen) != 2 {
		t.Error("it is not random")
	}
	if want := map[time.Duration]bool{0: true, 1: true, 2: true, 3: true, 4: true}; !maps.Equal(more, want) {
		t.Errorf("five times as many leases are spread over the seconds %v", more)
	}
}

// resources are what an outage must not use up.
type resources struct {
	goroutines, sockets int
	heap                uint64 // bytes in use
}

func measure(t *testing.T) resources {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r := resources{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc}
	for _, fd := range must[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")) {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(link, "socket:") {
			r.sockets++
		}
	}
	return r
}

// TestOutageUsesNothingUp compares an outage that has just begun with one of some hundred attempts, which is half an hour and
// more of the real pauses. It does not run beside others, which would be counted too.
func TestOutageUsesNothingUp(t *testing.T) {
	for _, c := range []struct {
		name    string
		harm    func(*etcdserver.Server) error
		more    int // attempts
		timeout time.Duration
	}{
		{"nothing listens", func(s *etcdserver.Server) error { s.Kill(); return nil }, 250, time.Second},
		{"nobody answers", (*etcdserver.Server).Pause, 50, 10 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			etcd := server(t, etcdserver.Options{})
			_, o := cluster(t, etcd.Endpoint())
			var asked requests
			o.LeaseTTL, o.RequestTimeout, o.DialTimeout = time.Hour, c.timeout, c.timeout
			o.quiet, o.retryLast = time.Millisecond, retryFirst
			o.dial = asked.options()
			s := open(t, o)
			w := storetest.Watch(t, s, nil)
			var r subnet.Record
			testctx.Eventually(t, func() (missing string) { // the timeouts are short for a busy machine
				var err error
				if r, err = s.Claim(t.Context(), nil, lease(1, "a")); err != nil {
					return err.Error()
				}
				return ""
			})
			h := startHold(t, s, r)
			w.There(r.Name)
			if err := c.harm(etcd); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			claims := make(chan struct{})
			go func() { // a node without a lease tries as well
				defer close(claims)
				for ctx.Err() == nil {
					_, _ = s.Claim(ctx, nil, lease(2, "b"))
				}
			}()
			h.change(lease(1, "b")) // and its own cannot be changed
			attempts := func(n int) {
				t.Helper()
				got := 0
				deadline := time.Now().Add(2 * patience)
				for got < n && time.Now().Before(deadline) {
					for _, count := range asked.take() {
						got += count
					}
					time.Sleep(time.Millisecond)
				}
				if got < n {
					t.Fatalf("%d attempts, want %d", got, n)
				}
			}
			attempts(c.more / 5)
			before := measure(t)
			attempts(c.more)
			// What is in the middle of an attempt comes and goes.
			var after resources
			testctx.Eventually(t, func() string {
				if after = measure(t); after.goroutines > before.goroutines+3 || after.sockets > before.sockets+1 || after.heap > before.heap+1<<20 {
					return fmt.Sprintf("no growth: %+v has become %+v", before, after)
				}
				return ""
			})
			t.Logf("%+v has become %+v", before, after)
			cancel()
			<-claims
			h.held()
			if s.connections.mu.Lock(); len(s.connections.open) > 2 {
				t.Errorf("%d connections are kept", len(s.connections.open))
			}
			s.connections.mu.Unlock()
		})
	}
}

func TestReleaseNode(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	o.LeaseTTL = DefaultLeaseTTL
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	one, err := s.Claim(t.Context(), nil, lease(1, "one"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Claim(t.Context(), nil, lease(2, "two"))
	if err != nil {
		t.Fatal(err)
	}
	value := must[[]byte](t)(lease(3, "three").Value())
	c.Write(t, "subnets/10.5.3.0-24", string(value)) // a reservation
	c.Write(t, "subnets/broken", "{}")
	w.There("broken")
	named := func(ids ...string) func(subnet.Lease) bool {
		return func(l subnet.Lease) bool {
			for _, id := range ids {
				if l.InstanceID == id {
					return true
				}
			}
			return false
		}
	}
	refused := func(what string, is error, says string, match func(subnet.Lease) bool) {
		t.Helper()
		if _, err := s.ReleaseNode(t.Context(), match, false); err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want one that says %s", what, err, says)
		}
	}
	refused("nobody's", ErrNoLease, "malformed records: "+o.Prefix+"/subnets/broken. If one of them is meant", named("four"))
	refused("two", nil, "10.5.1.0-24, 10.5.2.0-24 all match", named("one", "two"))
	refused("a reservation", ErrReservation, "etcdctl del "+o.Prefix+"/subnets/10.5.3.0-24", named("three"))

	h := startHold(t, s, one)
	released, err := open(t, o).ReleaseNode(t.Context(), named("one"), false)
	if err != nil || released.Name != one.Name || released.LeaseID != one.LeaseID {
		t.Errorf("released %+v, %v", released, err)
	}
	state := w.Gone(one.Name)
	if _, ok := state.Leases[two.Name]; !ok || len(state.Leases) != 3 {
		t.Errorf("there is %q", state.Names())
	}
	h.lost() // a daemon that was not stopped notices
	if _, err := s.keepAlive(t.Context(), one.LeaseID); err == nil {
		t.Error("its etcd lease is still there")
	}
	if released, err := s.ReleaseNode(t.Context(), named("three"), true); err != nil || released.Name != "10.5.3.0-24" {
		t.Errorf("released %+v, %v", released, err)
	}
	w.Gone("10.5.3.0-24")
	// Who is quicker than the release keeps what he wrote.
	var changed subnet.Record
	_, err = s.ReleaseNode(t.Context(), func(l subnet.Lease) bool {
		if l.InstanceID == "two" {
			changed = must[subnet.Record](t)(s.Claim(t.Context(), &two, lease(2, "other")))
			return true
		}
		return false
	}, false)
	if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "is its daemon still running?") {
		t.Errorf("the release of a lease that changes says %v", err)
	}
	if got := w.Reached(changed.Version).Names(); fmt.Sprint(got) != "[10.5.2.0-24 broken]" {
		t.Errorf("there is %q", got)
	}
}

func TestReleaseNodeSaysWhenEtcdIsAway(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Endpoints: []string{"http://127.0.0.1:1"}})
	if _, err := s.ReleaseNode(t.Context(), func(subnet.Lease) bool { return true }, false); err == nil || !strings.Contains(err.Error(), "nothing listens at http://127.0.0.1:1") {
		t.Errorf("the error is %v", err)
	}
}
