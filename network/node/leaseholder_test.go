package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
)

// holderLoop drives a lease holder as the node's loop does.
type holderLoop struct {
	*leaseHolder
	all    *subnet.View
	store  *memStore // unless the test has another one
	events chan subnet.Event
	out    bytes.Buffer
	gained int
	begin  sync.Once // of the watch
}

const (
	ownID   = "00000000000000000000000000000001"
	otherID = "00000000000000000000000000000002"
)

var ownIP = netip.MustParseAddr("192.0.2.1")

// leaseOf returns a lease of a node that is identified by the last byte of its public IP.
func leaseOf(id, prefix string, n byte) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", InstanceID: id, NodeName: fmt.Sprintf("node%d", n)}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{
		Subnet: netip.MustParsePrefix(prefix), PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, n}),
		Data: fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:00:00:00:00:%02x"}`, n),
	}
	return l
}

// newHolderLoop returns one on a network with room for eight subnets, where unique says what two leases may not both
// have.
func newHolderLoop(t *testing.T, unique func(subnet.Lease) []string) *holderLoop {
	store := newMemStore()
	l := newHolderLoopOn(t, store, unique)
	l.store = store
	return l
}

// newHolderLoopOn is newHolderLoop on any store.
func newHolderLoopOn(t *testing.T, store subnet.Store, unique func(subnet.Lease) []string) *holderLoop {
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/24","SubnetLen":27}`))
	if err != nil {
		t.Fatal(err)
	}
	l := &holderLoop{all: subnet.NewView(), events: make(chan subnet.Event)}
	ips := [2]netip.Addr{subnet.IPv4: ownIP}
	check := func(l subnet.Lease) (things []string, err error) {
		if unique != nil {
			things = unique(l)
		}
		return things, nil
	}
	l.all.SetRules(subnet.Rules{Config: c, InstanceID: ownID, PublicIPs: ips, Check: check})
	l.leaseHolder = newLeaseHolder(store, l.all, textLog(&l.out), func(f func()) { go f() })
	l.instanceID, l.publicIPs = ownID, ips
	l.advertise = func(subnets [2]netip.Prefix) subnet.Lease {
		return leaseOf(ownID, subnets[subnet.IPv4].String(), 1)
	}
	return l
}

func (l *holderLoop) run(t *testing.T, d time.Duration) {
	t.Helper()
	l.begin.Do(func() {
		go l.leaseHolder.store.Watch(t.Context(), func(e subnet.Event) error {
			select {
			case l.events <- e:
			case <-t.Context().Done():
			}
			return t.Context().Err()
		})
	})
	end := time.After(d)
	for {
		a := alarm{now: time.Now()}
		if l.step(t.Context(), &a) {
			l.gained++
		}
		var next <-chan time.Time
		if !a.at.IsZero() {
			next = time.After(time.Until(a.at))
		}
		select {
		case e := <-l.events:
			l.all.Apply(e)
		case c := <-l.claims:
			l.claimEnded(t.Context(), c)
		case r := <-l.lossResults:
			l.holdEnded(r)
		case <-next:
		case <-end:
			return
		}
	}
}

func (l *holderLoop) logged(t *testing.T, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSpace(l.out.String()), "\n")
	if len(got) != len(want) {
		t.Fatalf("logged\n%s\nwant %d lines", l.out.String(), len(want))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("logged %q, want %q", got[i], want[i])
		}
	}
	l.out.Reset()
}

// TestHolderClaims: a free subnet is claimed, final once the watch shows it, and kept; a new advertisement is written.
func TestHolderClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, nil)
		l.previous[subnet.IPv4] = netip.MustParsePrefix("10.5.0.64/27")
		l.run(t, time.Hour)
		if !l.final || l.gained != 1 || l.record.Name != "10.5.0.64-27" || l.subnets != l.previous {
			t.Fatalf("final %t, gained %d times, key %s", l.final, l.gained, l.record.Name)
		}
		l.logged(t, "lease acquired")
		l.advertise = func(subnets [2]netip.Prefix) subnet.Lease { return leaseOf(ownID, subnets[subnet.IPv4].String(), 9) }
		l.update()
		l.update() // the first one may not have been written yet
		l.run(t, time.Minute)
		m, _, _ := l.all.Get(l.record.Name)
		if got := m.Endpoints[subnet.IPv4].PublicIP; got.String() != "192.0.2.9" || l.store.claims != 1 || !l.final {
			t.Errorf("public IP %s after %d claims", got, l.store.claims)
		}
	})
}

// TestHolderRetries: a store that fails is asked again with backoff, and the failure is logged once.
func TestHolderRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, nil)
		l.store.claimErr = errors.New("no leader")
		l.run(t, time.Minute)
		if n := l.store.claims; n < 10 || n > 20 {
			t.Errorf("%d claims in a minute", n)
		}
		l.logged(t, "cannot get a lease; retrying error=no leader")
		l.store.set(func() { l.store.claimErr = nil })
		l.run(t, 20*time.Second)
		if !l.final {
			t.Error("no lease after the store was back")
		}
		l.logged(t, "lease acquired")
	})
}

// TestHolderFull: with no subnet free it waits, and takes one that becomes free.
func TestHolderFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, nil)
		var keys []string
		for i := range 8 {
			keys = append(keys, l.store.put(leaseOf(otherID, fmt.Sprintf("10.5.0.%d/27", 32*i), byte(10+i))))
		}
		l.run(t, time.Minute)
		if l.final || l.store.claims != 0 {
			t.Fatalf("final %t after %d claims in a full network", l.final, l.store.claims)
		}
		if !strings.Contains(l.lastErr, subnet.ErrFull.Error()) {
			t.Errorf("the error is %q", l.lastErr)
		}
		l.store.delete(keys[3])
		l.run(t, 20*time.Second)
		if !l.final || l.record.Name != keys[3] {
			t.Errorf("final %t with %s, want %s", l.final, l.record.Name, keys[3])
		}
	})
}

// TestHolderTaken: a lost race is followed at once by another choice, which avoids what was taken.
func TestHolderTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, nil)
		wanted := netip.MustParsePrefix("10.5.0.64/27")
		l.previous[subnet.IPv4] = wanted
		l.store.put(leaseOf(otherID, wanted.String(), 7))
		l.all.Apply(subnet.Event{Type: subnet.Synced}) // and the watch has not begun: the view does not show it
		l.step(t.Context(), &alarm{now: time.Now()})
		l.run(t, claimBackoff.Min/2)
		if !l.final {
			t.Fatal("it waited")
		}
		if l.subnets[subnet.IPv4] == wanted {
			t.Error("it has the subnet of another node")
		}
		l.logged(t, "lease acquired")
	})
}

// TestHolderLoses: after each way to lose a lease, the node gets one again, the same if it can.
func TestHolderLoses(t *testing.T) {
	for name, x := range map[string]struct {
		harm func(l *holderLoop, key string)
		same bool // the same subnet again
		log  string
	}{
		"expired": {func(l *holderLoop, _ string) { l.store.server.Expire(l.record) }, true, "lease lost; claiming again"},
		"deleted": {func(l *holderLoop, key string) { l.store.delete(key) }, true, "lease lost; claiming again"},
		"taken over": {func(l *holderLoop, key string) {
			l.store.put(leaseOf(otherID, l.subnets[subnet.IPv4].String(), 7))
		}, false, "lease lost; claiming again"},
		"overlapped by an older lease": {func(l *holderLoop, key string) {
			older := leaseOf(otherID, netip.PrefixFrom(l.subnets[subnet.IPv4].Addr(), 28).String(), 7)
			l.store.server.Put(older, -1)
		}, false, "yielding to an older lease"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newHolderLoop(t, nil)
			l.run(t, time.Minute)
			if !l.final {
				t.Fatalf("%s: no lease", name)
			}
			before := l.subnets
			l.out.Reset()
			x.harm(l, l.record.Name)
			l.run(t, time.Minute)
			if !l.final || l.gained != 2 || (l.subnets == before) != x.same {
				t.Errorf("%s: final %t, gained %d times, %v after %v", name, l.final, l.gained, l.subnets, before)
			}
			l.logged(t, x.log, "lease acquired")
		})
	}
}

// TestHolderConflict: a lease that has a MAC address of an older one stays held, and says in which revision that is so.
func TestHolderConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, func(l subnet.Lease) []string { return []string{l.Endpoints[subnet.IPv4].Data} })
		clone := leaseOf(otherID, "10.5.0.0/27", 1) // with the MAC address that our lease is going to have
		clone.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("192.0.2.7")
		l.store.put(clone)
		l.run(t, time.Minute)
		if l.final || l.phase != holding || l.conflict == 0 {
			t.Fatalf("final %t, phase %d, conflict %d", l.final, l.phase, l.conflict)
		}
		l.advertise = func(subnets [2]netip.Prefix) subnet.Lease { return leaseOf(ownID, subnets[subnet.IPv4].String(), 9) }
		l.update()
		l.run(t, time.Minute)
		if !l.final || l.conflict != 0 {
			t.Errorf("final %t, conflict %d after the update", l.final, l.conflict)
		}
		l.logged(t, "lease acquired")
	})
}

// TestHolderProblem: a lease that is lost again and again, and one that other nodes reject after it was final, are
// problems; one that is replaced at once is none.
func TestHolderProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, func(l subnet.Lease) []string { return []string{l.Endpoints[subnet.IPv4].Data} })
		expect := func(what, want string, since time.Duration) {
			t.Helper()
			_, text, at := l.problem(time.Now())
			if (text == "") != (want == "") || !strings.Contains(text, want) {
				t.Errorf("%s: problem %q, want %q", what, text, want)
			}
			if want != "" && time.Since(at) < since {
				t.Errorf("%s: since %v", what, time.Since(at))
			}
		}
		expect("before the first claim", "", 0)
		l.run(t, time.Minute)
		expect("with a lease", "", 0)

		l.store.delete(l.record.Name)
		l.run(t, 500*time.Millisecond)
		expect("lost once", "", 0)
		for l.phase == holding || time.Until(l.losses.At()) < 3*time.Second {
			if l.phase == holding {
				l.store.delete(l.record.Name)
			}
			l.run(t, 100*time.Millisecond)
		}
		l.run(t, 2*time.Second)
		expect("lost again and again", "this node lost its lease", time.Second)
		l.run(t, 5*time.Minute)
		expect("with a lease again", "", 0)

		free := "10.5.0.224/27"
		if l.subnets[subnet.IPv4].String() == free {
			free = "10.5.0.192/27"
		}
		older := leaseOf(otherID, free, 1) // with the MAC address of our lease
		older.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("192.0.2.7")
		l.store.server.Put(older, -1)
		l.run(t, time.Minute)
		if !l.final {
			t.Fatal("not final any more")
		}
		expect("rejected", "other nodes reject this node's lease", 50*time.Second)
	})
}

// TestHolderAdopts: a cached lease counts at once, and is claimed again when the store is back.
func TestHolderAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHolderLoop(t, nil)
		own := leaseOf(ownID, "10.5.0.96/27", 1)
		l.adopt(subnet.Record{Lease: own, Name: own.Key()})
		if !l.final || l.subnets[subnet.IPv4] != own.Endpoints[subnet.IPv4].Subnet {
			t.Fatalf("final %t with %v", l.final, l.subnets)
		}
		l.reclaim()
		if l.final {
			t.Fatal("final before it was claimed")
		}
		l.run(t, time.Minute)
		if !l.final || l.record.Name != own.Key() || l.record.Order == 0 {
			t.Errorf("final %t with %+v", l.final, l.record)
		}
		l.logged(t, "using this node's cached lease", "lease acquired")
	})
}

// countingStore counts the claims on a store.
type countingStore struct {
	*memstore.Store
	claims int // one at a time
}

func (s *countingStore) Claim(ctx context.Context, have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	s.claims++
	return s.Store.Claim(ctx, have, want)
}

// TestHolderAllocated: a store that allocates gives the subnets. The holder waits for them with backoff, does not claim
// again while an older lease has the same ones, and follows a node that comes again with others.
func TestHolderAllocated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memstore.NewAllocating()
		defer server.Close()
		store := &countingStore{Store: server.OpenNode("this")}
		l := newHolderLoopOn(t, store, nil)
		l.previous[subnet.IPv4] = netip.MustParsePrefix("10.5.0.32/27") // which the store does not give
		l.advertise = func(subnets [2]netip.Prefix) subnet.Lease {
			own := leaseOf(ownID, "10.5.0.0/27", 1)
			own.Endpoints[subnet.IPv4].Subnet = subnets[subnet.IPv4]
			return own
		}
		l.run(t, time.Minute)
		if l.final || store.claims < 10 || store.claims > 20 {
			t.Errorf("final %t after %d claims in a minute", l.final, store.claims)
		}
		l.logged(t, "waiting for the lease store to give this node a subnet")
		if code, text, _ := l.problem(time.Now()); code != status.NotAllocated || !strings.Contains(text, subnet.ErrNotAllocated.Error()) {
			t.Errorf("the problem is %s: %s", code, text)
		}

		first, second := netip.MustParsePrefix("10.5.0.64/27"), netip.MustParsePrefix("10.5.0.96/27")
		server.AddNode("elder")
		server.AddNode("this")
		server.Allocate("this", first)
		l.run(t, 2*allocatedWait) // and not as long as the wait had become
		if !l.final || l.record.Name != "this" || l.subnets[subnet.IPv4] != first {
			t.Fatalf("final %t with %+v", l.final, l.record)
		}
		l.logged(t, "lease acquired")

		server.Allocate("elder", first)
		server.Publish("elder", leaseOf(otherID, first.String(), 7))
		store.claims = 0
		l.run(t, time.Hour)
		if l.final || l.phase != holding || store.claims != 0 {
			t.Errorf("final %t in phase %d after %d claims, beside an older lease", l.final, l.phase, store.claims)
		}
		l.logged(t, "this node's lease is invalid")
		server.RemoveNode("elder")
		l.run(t, time.Minute)
		if !l.final || l.gained != 2 {
			t.Errorf("final %t, gained %d times, once the older lease is gone", l.final, l.gained)
		}
		l.logged(t, "lease acquired")

		server.RemoveNode("this")
		l.run(t, time.Minute)
		if l.final {
			t.Error("final without a node")
		}
		server.AddNode("this")
		server.Allocate("this", second)
		l.run(t, 20*time.Second)
		if !l.final || l.subnets[subnet.IPv4] != second {
			t.Errorf("final %t with %v, want %s", l.final, l.subnets, second)
		}
	})
}
