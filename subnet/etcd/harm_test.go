package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// said reports which of the lines logged contain text.
func (l *logged) said(text string) (lines []string) {
	for _, line := range l.lines() {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestOutageTakesNothingAway(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	log, kept := logger(t)
	o.Log, o.LeaseTTL = log, time.Minute
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	w.There(r.Name)

	etcd.Kill()
	testctx.Eventually(t, func() string {
		if len(kept.said("etcd unavailable; the data path is unaffected: ")) == 0 {
			return "word of the outage"
		}
		return ""
	})
	if o := s.Outage(); o.Since.IsZero() || o.Problem.Reason != subnet.ReasonRefused || !strings.Contains(o.Problem.Err.Error(), "nothing listens at "+etcd.Endpoint()) {
		t.Errorf("an outage since %v because of %v", o.Since, o.Problem.Err)
	}
	if _, err := s.Claim(t.Context(), nil, lease(2, "a")); err == nil || !strings.Contains(err.Error(), "nothing listens at") {
		t.Errorf("a claim says %v", err)
	}
	h.change(lease(1, "b")) // to be written when etcd is back
	restart(t, etcd)
	c.Write(t, "subnets/10.5.9.0-24", "x")
	state := w.There("10.5.9.0-24")
	if state.Synced != 1 {
		t.Errorf("%d snapshots: the history was there all the time", state.Synced)
	}
	w.Until(func(s storetest.State) string {
		if s.Leases[r.Name].Lease != lease(1, "b") {
			return "our own change"
		}
		return ""
	})
	h.held()
	testctx.Eventually(t, func() string { // the watch of the config comes after that of the leases
		if o := s.Outage(); !o.Since.IsZero() {
			return "the end of the outage"
		}
		return ""
	})
	if lost, back := kept.said("etcd unavailable"), kept.said("reconnected to etcd"); len(back) != 1 || !strings.Contains(lost[0], "nothing listens at "+etcd.Endpoint()) {
		t.Errorf("said %q and %q", lost, back)
	}
}

func TestEtcdThatIsNotThereYetIsWaitedFor(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	_, o := cluster(t, etcd.Endpoint())
	etcd.Kill()
	log, kept := logger(t)
	o.Log, o.Username, o.Password = log, "root", "secret" // which must not be asked for a token yet
	w := storetest.Watch(t, open(t, o), nil)
	testctx.Eventually(t, func() string {
		if len(kept.said("nothing listens")) == 0 {
			return "word of the outage"
		}
		return ""
	})
	restart(t, etcd)
	w.Synced(1)
}

func TestStallIsNoticedAndSurvived(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	log, kept := logger(t)
	o.Log, o.RequestTimeout, o.quiet = log, 200*time.Millisecond, 50*time.Millisecond
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	if err := etcd.Pause(); err != nil {
		t.Fatal(err)
	}
	testctx.Eventually(t, func() string {
		if len(kept.said("did not answer within 200ms")) == 0 {
			return "word of the stall"
		}
		return ""
	})
	if err := etcd.Continue(); err != nil {
		t.Fatal(err)
	}
	c.Write(t, "subnets/10.5.9.0-24", "x")
	if state := w.There("10.5.9.0-24"); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
}

func TestCompactionBehindOurBackEndsInASnapshot(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	blocked, goOn := make(chan struct{}), make(chan struct{})
	w := storetest.Watch(t, open(t, o), func(e subnet.Event) {
		if e.Type == subnet.Changed && len(e.Put) > 0 && e.Put[0].Name == "block" {
			close(blocked)
			<-goOn
		}
	})
	w.Synced(1)
	c.Write(t, "config", "old")
	c.Write(t, "subnets/goes", "x")
	w.There("goes")
	c.Write(t, "subnets/block", "x")
	<-blocked
	// The stream ends here, and what comes now is not in it any more.
	restart(t, etcd)
	c.Delete(t, "subnets/goes")
	c.Write(t, "config", "new")
	c.Write(t, "subnets/comes", "x")
	a := admin(t, etcd.Endpoint())
	head := must[*clientv3.GetResponse](t)(a.Get(t.Context(), "x")).Header.Revision
	must[*clientv3.CompactResponse](t)(a.Compact(t.Context(), head))
	close(goOn)
	state := w.Synced(2)
	if got := fmt.Sprint(state.Names()); got != "[block comes]" || string(state.Config) != "new" {
		t.Errorf("after the compaction there is %s, config %q", got, state.Config)
	}
	c.Write(t, "subnets/later", "x")
	w.There("later")
}

func TestCompactionInTheMiddleOfAListStartsItOver(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	a := admin(t, etcd.Endpoint())
	const n = pageSize + 10
	for i := range n {
		c.Write(t, fmt.Sprintf("subnets/%05d", i), "x")
	}
	// After the first page, one of its keys goes and the revision of the list is compacted.
	pages := 0
	w := storetest.Watch(t, open(t, o), func(e subnet.Event) {
		if e.Type != subnet.Page {
			return
		}
		if pages++; pages == 1 {
			c.Delete(t, "subnets/00000")
			head := must[*clientv3.PutResponse](t)(a.Put(t.Context(), "x", "x")).Header.Revision
			must[*clientv3.CompactResponse](t)(a.Compact(t.Context(), head))
		}
	})
	if state := w.Synced(1); len(state.Leases) != n-1 || pages != 3 {
		t.Errorf("%d leases on %d pages", len(state.Leases), pages)
	}
}

// wipe makes etcd forget everything. What is restored is its data then; empty: nothing.
func wipe(t *testing.T, etcd *etcdserver.Server, restored string) {
	t.Helper()
	etcd.Kill()
	if err := os.RemoveAll(etcd.DataDir()); err != nil {
		t.Fatal(err)
	}
	if restored != "" {
		if err := os.CopyFS(etcd.DataDir(), os.DirFS(restored)); err != nil {
			t.Fatal(err)
		}
	}
	restart(t, etcd)
}

func TestWipedEtcdThatIsAheadAgainIsToldByWhatItHolds(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(write func(key, value string)) // what somebody does after the wipe
	}{
		{"config at another revision", func(write func(key, value string)) {
			write("subnets/new", "x")
			write("config", "x")
		}},
		{"config at the same revision", func(write func(key, value string)) {
			write("config", "x")
			write("subnets/new", "x")
		}},
		{"another lease at the same revision", func(write func(key, value string)) {
			write("config", "x")
			write("other", "x")
			write("subnets/new", "x")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			etcd := server(t, etcdserver.Options{})
			cluster, o := cluster(t, etcd.Endpoint())
			cluster.Write(t, "config", "x")
			blocked, goOn := make(chan struct{}), make(chan struct{})
			w := storetest.Watch(t, open(t, o), func(e subnet.Event) {
				if e.Type == subnet.Changed && len(e.Put) > 0 && e.Put[0].Name == "block" {
					close(blocked)
					<-goOn
				}
			})
			w.Synced(1)
			cluster.Write(t, "subnets/old", "x")
			w.There("old")
			cluster.Write(t, "subnets/block", "x")
			<-blocked
			wipe(t, etcd, "")
			c.fill(func(key, value string) { cluster.Write(t, key, value) })
			for range 10 {
				cluster.Write(t, "elsewhere", "x")
			}
			close(goOn)
			if state := w.Synced(2); fmt.Sprint(state.Names()) != "[new]" {
				t.Errorf("there is %q", state.Names())
			}
		})
	}
}

// mute is a dial option that, while it is on, lets nothing through that comes on a stream.
type mute struct{ on atomic.Bool }

func (m *mute) option() grpc.DialOption {
	return grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := next(ctx, desc, conn, method, opts...)
		return &mutedStream{s, m}, err
	})
}

type mutedStream struct {
	grpc.ClientStream
	*mute
}

// RecvMsg never returns a message again once it has kept one back: a stream loses nothing in its middle.
func (s *mutedStream) RecvMsg(m any) error {
	for dead := false; ; {
		if err := s.ClientStream.RecvMsg(m); err != nil {
			return err
		}
		if dead = dead || s.on.Load(); !dead {
			return nil
		}
	}
}

func TestDeadWatchOnALiveConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	var m mute
	o.dial, o.quiet, o.RequestTimeout = []grpc.DialOption{m.option()}, 20*time.Millisecond, 500*time.Millisecond
	var asked requests
	o.dial = append(o.dial, asked.options()...)
	w := storetest.Watch(t, open(t, o), nil)
	c.Write(t, "subnets/first", "x")
	w.There("first")
	asked.take()
	m.on.Store(true)
	c.Write(t, "subnets/second", "x")
	testctx.Eventually(t, func() string { // another stream is opened, which says nothing either
		asked.Lock()
		defer asked.Unlock()
		if asked.count[watch] == 0 {
			return "another stream"
		}
		return ""
	})
	m.on.Store(false)
	c.Write(t, "subnets/third", "x")
	if state := w.There("third"); fmt.Sprint(state.Names()) != "[first second third]" || state.Synced != 1 {
		t.Errorf("%d snapshots, there is %q", state.Synced, state.Names())
	}
}

func TestQuietWatchLearnsHowFarTheStoreIs(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	o.quiet = 20 * time.Millisecond
	w := storetest.Watch(t, open(t, o), nil)
	w.Synced(1)
	// Nothing of ours, but the store's revision moves on.
	a := admin(t, o.Endpoints[0])
	head := must[*clientv3.PutResponse](t)(a.Put(t.Context(), o.Prefix+"/other", "x")).Header.Revision
	state := w.Reached(head)
	if len(state.Leases) > 0 || state.Synced != 1 {
		t.Errorf("%d snapshots, there is %q", state.Synced, state.Names())
	}
	c.Write(t, "subnets/later", "x")
	w.There("later")
}

func TestVeryLargeValuesComeInSmallerPagesAndInFragments(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	c, o := cluster(t, etcd.Endpoint())
	large := strings.Repeat("x", 1_300_000)
	for i := range 8 { // more than one answer may hold
		c.Write(t, fmt.Sprintf("subnets/%d", i), large)
	}
	blocked, goOn := make(chan struct{}), make(chan struct{})
	w := storetest.Watch(t, open(t, o), func(e subnet.Event) {
		if e.Type == subnet.Changed && len(e.Put) > 0 && e.Put[0].Name == "block" {
			close(blocked)
			<-goOn
		}
	})
	if state := w.Synced(1); len(state.Leases) != 8 || len(state.Events) < 3 {
		t.Errorf("%d leases in %d events", len(state.Leases), len(state.Events))
	}
	c.Write(t, "subnets/block", "x")
	<-blocked
	restart(t, etcd)
	for i := range 8 {
		c.Write(t, fmt.Sprintf("subnets/%d", i+4), large+"y")
	}
	close(goOn)
	c.Write(t, "subnets/last", "x")
	if state := w.There("last"); len(state.Leases) != 14 || state.Synced != 1 {
		t.Errorf("%d leases, %d snapshots", len(state.Leases), state.Synced)
	}
}

// loses is a dial option that carries out transactions and loses the answers of as many as it is told to.
type loses struct{ answers atomic.Int32 }

func (l *loses) option() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := next(ctx, method, req, reply, conn, opts...)
		if method == pb.KV_Txn_FullMethodName && l.answers.Add(-1) >= 0 {
			return status.Error(codes.Unavailable, "the connection broke")
		}
		return err
	})
}

func TestTransactionWhoseAnswerIsLostIsNotHeldAgainstUs(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	var l loses
	o.dial, o.LeaseTTL = []grpc.DialOption{l.option()}, time.Minute
	s := open(t, o)
	step := func(what string, do func() (subnet.Record, error)) subnet.Record {
		t.Helper()
		l.answers.Store(1)
		r, err := do()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if l.answers.Load() > 0 {
			t.Fatalf("%s asks for no transaction", what)
		}
		return r
	}
	r := step("claim", func() (subnet.Record, error) { return s.Claim(t.Context(), nil, lease(1, "a")) })
	r = step("take over", func() (subnet.Record, error) { return s.Claim(t.Context(), &r, lease(1, "b")) })
	r = step("another key", func() (subnet.Record, error) { return s.Claim(t.Context(), &r, lease(2, "b")) })
	step("release", func() (subnet.Record, error) { return r, s.Release(t.Context(), r) })

	c.Write(t, "subnets/10.5.3.0-24", "{}")
	w := storetest.Watch(t, s, nil)
	reserved := w.Synced(1).Leases["10.5.3.0-24"]
	r = step("reservation", func() (subnet.Record, error) { return s.Claim(t.Context(), &reserved, lease(3, "a")) })
	h := startHold(t, s, r)
	l.answers.Store(4) // one attempt to write asks three times
	h.change(lease(3, "b"))
	h.change(lease(3, "c"))
	h.change(lease(3, "d"))
	h.held()
}

func TestClaimWithoutAnyAnswerIsSettledByTheNextOne(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	var l loses
	o.dial, o.LeaseTTL = []grpc.DialOption{l.option()}, time.Minute
	s := open(t, o)
	unanswered := func(n int, name string) {
		t.Helper()
		l.answers.Store(3)
		if _, err := s.Claim(t.Context(), nil, lease(n, name)); err == nil || errors.Is(err, subnet.ErrTaken) {
			t.Fatalf("the claim gives %v", err)
		}
		l.answers.Store(0)
	}
	w := storetest.Watch(t, open(t, Options{Endpoints: o.Endpoints, Prefix: o.Prefix}), nil)
	w.Synced(1)

	unanswered(1, "a")
	one, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatalf("the same again: %v", err)
	}

	unanswered(2, "a")
	renamed := lease(2, "a")
	renamed.NodeName = "another"
	two, err := s.Claim(t.Context(), nil, renamed)
	if err != nil {
		t.Fatalf("the same with another value: %v", err)
	}

	unanswered(3, "a")
	w.There("10.5.3.0-24")
	if _, err := s.Claim(t.Context(), nil, lease(4, "a")); err != nil {
		t.Fatalf("another one: %v", err)
	}
	w.Gone("10.5.3.0-24") // which nobody would have given back

	unanswered(5, "a")
	seen := w.There("10.5.5.0-24").Leases["10.5.5.0-24"]
	if _, err := s.Claim(t.Context(), &seen, lease(5, "a")); err != nil {
		t.Fatalf("one that was seen meanwhile: %v", err)
	}
	six, err := s.Claim(t.Context(), nil, lease(6, "a"))
	if err != nil {
		t.Fatal(err)
	}
	state := w.Reached(six.Version)
	if got := fmt.Sprint(state.Names()); got != "[10.5.1.0-24 10.5.2.0-24 10.5.4.0-24 10.5.5.0-24 10.5.6.0-24]" {
		t.Errorf("there is %s", got)
	}
	leases := map[int64]bool{}
	for _, r := range state.Leases {
		leases[r.LeaseID] = true
	}
	if len(leases) != 5 || !leases[one.LeaseID] || !leases[two.LeaseID] {
		t.Errorf("%d etcd leases for 5 keys", len(leases))
	}
}

// TestClaimsWithoutAnyAnswerSideBySide: several nodes that share a store, as in simulations, leave no key behind either.
func TestClaimsWithoutAnyAnswerSideBySide(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	var l loses
	o.dial, o.LeaseTTL = []grpc.DialOption{l.option()}, time.Minute
	s := open(t, o)
	w := storetest.Watch(t, open(t, Options{Endpoints: o.Endpoints, Prefix: o.Prefix}), nil)
	w.Synced(1)
	nodes := []string{"a", "b", "c"}
	l.answers.Store(int32(3 * len(nodes)))
	var claims sync.WaitGroup
	for i, name := range nodes {
		claims.Go(func() {
			if _, err := s.Claim(t.Context(), nil, lease(1+i, name)); err == nil {
				t.Error("a claim without an answer succeeded")
			}
		})
	}
	claims.Wait()
	l.answers.Store(0)
	for i, name := range nodes {
		w.There(lease(1+i, name).Key())
	}
	var last subnet.Record
	for i, name := range nodes {
		last = must[subnet.Record](t)(s.Claim(t.Context(), nil, lease(11+i, name)))
	}
	if got := fmt.Sprint(w.Reached(last.Version).Names()); got != "[10.5.11.0-24 10.5.12.0-24 10.5.13.0-24]" {
		t.Errorf("there is %s", got)
	}
	// Nor does a node end the lease of another that goes on with what it has claimed.
	l.answers.Store(3)
	if _, err := s.Claim(t.Context(), nil, lease(21, "d")); err == nil {
		t.Fatal("a claim without an answer succeeded")
	}
	l.answers.Store(0)
	must[subnet.Record](t)(s.Claim(t.Context(), nil, lease(22, "e")))
	if r := must[subnet.Record](t)(s.Claim(t.Context(), nil, lease(21, "d"))); r.Version != w.There(r.Name).Leases[r.Name].Version {
		t.Errorf("%+v was claimed again", r)
	}
}

func TestSpareEtcdLeaseThatHasRunOutIsReplaced(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	s := open(t, o)
	c.Write(t, "subnets/10.5.1.0-24", "{}")
	if _, err := s.Claim(t.Context(), nil, lease(1, "a")); !errors.Is(err, subnet.ErrTaken) {
		t.Fatal(err)
	}
	if len(s.spares) != 1 || s.spares[0].key != "" {
		t.Fatalf("the spare leases are %+v", s.spares)
	}
	c.Expire(t, subnet.Record{LeaseID: s.spares[0].id})
	if _, err := s.Claim(t.Context(), nil, lease(2, "a")); err != nil {
		t.Error(err)
	}
}

func TestAnotherLifetimeIsTakenWithTheNextClaim(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	a := admin(t, o.Endpoints[0])
	ttl := func(r subnet.Record) int64 {
		t.Helper()
		return must[*clientv3.LeaseTimeToLiveResponse](t)(a.TimeToLive(t.Context(), clientv3.LeaseID(r.LeaseID))).GrantedTTL
	}
	o.LeaseTTL = DefaultLeaseTTL
	r := must[subnet.Record](t)(open(t, o).Claim(t.Context(), nil, lease(1, "a")))
	o.LeaseTTL = time.Hour
	s := open(t, o)
	for _, l := range []subnet.Lease{lease(1, "a"), lease(1, "b"), lease(2, "b")} {
		now := must[subnet.Record](t)(s.Claim(t.Context(), &r, l))
		if got := ttl(now); got != 3600 {
			t.Errorf("claimed again for %d s, want an hour", got)
		}
		if now.LeaseID != r.LeaseID && ttl(r) > 0 {
			t.Error("the last etcd lease is still there")
		}
		if now.Order != r.Order && now.Name == r.Name {
			t.Errorf("%+v became %+v", r, now)
		}
		r = now
	}
	if len(s.spares) > 0 {
		t.Errorf("etcd leases too many: %+v", s.spares)
	}
	// What is shorter than etcd allows is what it was, and not claimed anew each time.
	o.LeaseTTL = time.Second
	shortest := open(t, o)
	r = must[subnet.Record](t)(shortest.Claim(t.Context(), &r, lease(2, "b")))
	again := must[subnet.Record](t)(open(t, o).Claim(t.Context(), &r, lease(2, "b")))
	if again.LeaseID != r.LeaseID || again.Version != r.Version {
		t.Errorf("%+v became %+v", r, again)
	}
}

func TestHoldOfARecordWhoseEtcdLeaseIsGoneIsLost(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	s := open(t, o)
	if _, err := s.keepAlive(t.Context(), 42); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("a renewal of nothing: %v", err)
	}
	startHold(t, s, subnet.Record{Name: "10.5.1.0-24", LeaseID: 42, Order: 1, Version: 1}).lost()
}

func TestHoldHearsOfItsKeyFromWatch(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	o.LeaseTTL = DefaultLeaseTTL // so that no renewal comes to look
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	h.change(lease(1, "b"))
	h.change(lease(1, "c")) // our own changes are none of another process
	h.change(lease(1, "d"))
	w.There(r.Name)
	h.held()
	c.Delete(t, "subnets/"+r.Name)
	h.lost()
}

func TestHoldOfALeaseThatCannotBeWrittenDownEnds(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	s := open(t, o)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	bad := lease(1, "a")
	bad.Endpoints[subnet.IPv4].Data = "{"
	h.change(bad)
	select {
	case <-h.ended:
		if h.err == nil || errors.Is(h.err, subnet.ErrLost) {
			t.Errorf("Hold returned %v", h.err)
		}
	case <-time.After(patience):
		t.Error("Hold goes on")
	}
}
