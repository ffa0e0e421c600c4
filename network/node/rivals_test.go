package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
)

// rivalry is some nodes on one store, and a count of what is written to it.
type rivalry struct {
	t      *testing.T
	server *memstore.Server
	writes atomic.Int32
}

// testTTL is the time of the leases of a rivalry.
const testTTL = 24 * time.Hour

func newRivalry(t *testing.T) *rivalry {
	r := &rivalry{t: t, server: memstore.New()}
	t.Cleanup(r.server.Close)
	go r.server.Open(testTTL).Watch(t.Context(), func(e subnet.Event) error {
		if e.Type == subnet.Changed {
			r.writes.Add(1)
		}
		return nil
	})
	return r
}

// contestant is a node of a rivalry.
type contestant struct {
	*holderLoop
	ip   byte
	stop context.CancelFunc
	done chan struct{}
}

// add returns a node with an instance id and, as the last byte of its public IP, ip. It does not run yet.
func (r *rivalry) add(id string, ip byte) *contestant {
	c := &contestant{holderLoop: newHolderLoopOn(r.t, r.server.Open(testTTL), nil), ip: ip}
	c.publicIPs = [2]netip.Addr{subnet.IPv4: netip.AddrFrom4([4]byte{192, 0, 2, ip})}
	c.identify(r.t, id)
	return c
}

// identify gives the node an instance id.
func (c *contestant) identify(t *testing.T, id string) {
	config, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/24","SubnetLen":27}`))
	if err != nil {
		t.Fatal(err)
	}
	c.instanceID = id
	c.advertise = func(s [2]netip.Prefix) subnet.Lease { return leaseOf(id, s[subnet.IPv4].String(), c.ip) }
	c.all.SetRules(subnet.Rules{Config: config, InstanceID: id, PublicIPs: c.publicIPs})
}

// start runs the node in the background until it is killed.
func (c *contestant) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c.stop, c.done = cancel, make(chan struct{})
	c.leaseHolder.start = func(f func()) { go f() }
	go func() {
		defer close(c.done)
		go c.store().Watch(ctx, func(e subnet.Event) error {
			select {
			case c.events <- e:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		for ctx.Err() == nil {
			a := alarm{now: time.Now()}
			if c.step(ctx, &a) {
				c.gained++
			}
			if c.cloned {
				c.cloned = false
				c.identify(t, fmt.Sprintf("%0*d", instanceIDLen, 900+int(c.ip)))
				continue
			}
			var next <-chan time.Time
			if !a.at.IsZero() {
				next = time.After(time.Until(a.at))
			}
			select {
			case e := <-c.events:
				c.all.Apply(e)
			case x := <-c.claims:
				c.claimEnded(ctx, x)
			case x := <-c.lossResults:
				c.holdEnded(x)
			case <-next:
			case <-ctx.Done():
			}
		}
	}()
}

// kill ends the node, which releases nothing.
func (c *contestant) kill() {
	c.stop()
	<-c.done
}

func (c *contestant) store() subnet.Store { return c.leaseHolder.store }

// subnet is the node's subnet; invalid: it has none for sure.
func (c *contestant) subnet() (p netip.Prefix) {
	if c.final {
		p = c.subnets[subnet.IPv4]
	}
	return p
}

// wait lets time pass until nothing happens any more at its end.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// calm checks that nothing is written for an hour, and that no node logs anything.
func (r *rivalry) calm(all ...*contestant) {
	r.t.Helper()
	wait(time.Minute)
	before := r.writes.Load()
	for _, c := range all {
		c.out.Reset()
	}
	wait(time.Hour)
	if n := r.writes.Load() - before; n != 0 {
		r.t.Errorf("%d writes in an hour", n)
	}
	for _, c := range all {
		if c.out.Len() > 0 {
			r.t.Errorf("logged in that hour: %s", c.out.String())
		}
		if !c.subnet().IsValid() {
			r.t.Errorf("a node has no lease")
		}
		for _, x := range all {
			if x != c && x.subnet() == c.subnet() {
				r.t.Errorf("two nodes have %s", c.subnet())
			}
		}
	}
}

// TestLiveHolderKeepsItsLease: a node that only has the public IP of a live one gets another subnet, for three writes,
// and says why, once.
func TestLiveHolderKeepsItsLease(t *testing.T) {
	for name, reserved := range map[string]bool{"lease": false, "reservation": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRivalry(t)
				if reserved {
					r.server.Write("subnets/10.5.0.32-27", `{"PublicIP":"192.0.2.1","BackendType":"vxlan"}`)
				}
				a, b := r.add(ownID, 1), r.add(otherID, 1)
				a.start(t)
				wait(time.Hour)
				had := a.subnet()
				before := r.writes.Load()
				b.start(t)
				wait(time.Second)
				if !b.subnet().IsValid() || a.subnet() != had || a.gained != 1 {
					t.Errorf("the newcomer has %s, and the holder of %s now has %s", b.subnet(), had, a.subnet())
				}
				if n := r.writes.Load() - before; n != 3 {
					t.Errorf("%d writes, want the question, the answer and the claim", n)
				}
				b.logged(t, "another live node has this node's public IP", "lease acquired")
				r.calm(a, b)
			})
		})
	}
}

// TestGoneHolderIsReplaced: a reinstalled node has its old subnet again after answerTime.
func TestGoneHolderIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivalry(t)
		a, b, late := r.add(ownID, 1), r.add(otherID, 1), r.add(strings.Repeat("3", instanceIDLen), 1)
		a.start(t)
		wait(time.Hour)
		had := a.subnet()
		a.kill()
		b.start(t)
		wait(answerTime / 2)
		if b.subnet().IsValid() || b.question == "" {
			t.Errorf("it has %s before the holder could answer; it asks %q", b.subnet(), b.question)
		}
		late.start(t) // a third one, while the second one asks
		wait(answerTime/2 + time.Second)
		if b.subnet() != had {
			t.Errorf("it has %s, want that of the earlier installation, %s", b.subnet(), had)
		}
		b.logged(t, "did not answer; taking it over", "lease acquired")
		r.calm(b, late)
	})
}

// TestOneExchange: a holder that could not answer takes its lease back, once.
func TestOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivalry(t)
		a, b := r.add(ownID, 1), r.add(otherID, 1)
		a.start(t)
		wait(time.Hour)
		had := a.subnet()
		b.rivals.silent(a.record) // as if it had not answered
		before := r.writes.Load()
		b.start(t)
		wait(time.Minute)
		if a.subnet() != had || a.gained != 2 || b.gained != 2 {
			t.Errorf("the holder of %s has %s, and got a lease %d times; the other %d times", had, a.subnet(), a.gained, b.gained)
		}
		if n := r.writes.Load() - before; n != 3 {
			t.Errorf("%d writes, want the takeover, the return and another claim", n)
		}
		b.logged(t, "lease acquired", "lease lost", "the holder of a lease that this node took over is alive", "lease acquired")
		r.calm(a, b)
	})
}

// TestExchangeWithoutQuestions: in a store where no holder can be asked, and between nodes that do not answer, a lease
// is exchanged once too.
func TestExchangeWithoutQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivalry(t)
		a, b := r.add(ownID, 1), r.add(otherID, 1)
		for _, c := range []*contestant{a, b} {
			c.leaseHolder.store = struct{ subnet.Store }{c.leaseHolder.store}
		}
		a.start(t)
		wait(time.Hour)
		before := r.writes.Load()
		b.start(t)
		wait(time.Minute)
		if n := r.writes.Load() - before; n > 4 {
			t.Errorf("%d writes", n)
		}
		r.calm(a, b)
	})
}

// TestTwoDaemonsWithOneID: the one that came later gets another id, after one exchange; two that come at one moment end
// with two ids as well.
func TestTwoDaemonsWithOneID(t *testing.T) {
	for name, apart := range map[string]time.Duration{"later": time.Hour, "soon after": time.Second, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRivalry(t)
				a, b := r.add(ownID, 1), r.add(ownID, 2)
				a.start(t)
				wait(apart)
				had := a.subnet()
				b.start(t)
				wait(time.Minute)
				if apart == time.Hour && (a.subnet() != had || b.instanceID == ownID) {
					t.Errorf("the holder of %s has %s; the other one has the id %s", had, a.subnet(), b.instanceID)
				}
				if n := r.writes.Load(); n > 8 {
					t.Errorf("%d writes", n)
				}
				r.calm(a, b)
			})
		})
	}
}

// TestRewrittenByHand: a record that is put back by hand, with another content, is claimed again under the same id.
func TestRewrittenByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivalry(t)
		a := r.add(ownID, 1)
		a.start(t)
		wait(time.Hour)
		had := a.subnet()
		for range 3 {
			r.server.Put(leaseOf(ownID, had.String(), 9), 0)
			wait(20 * time.Second)
			if a.instanceID != ownID || a.subnet() != had {
				t.Errorf("it is %s with %s, want %s", a.instanceID, a.subnet(), had)
			}
		}
		r.calm(a)
	})
}

// TestFlannelsLease: a flannel node's lease with this node's public IP is taken over at once if this machine was its
// holder, and left alone otherwise.
func TestFlannelsLease(t *testing.T) {
	for _, ours := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRivalry(t)
			l := leaseOf("", "10.5.0.96/27", 1)
			r.server.Put(l, 0) // it has no expiry: make it one that has
			a := r.add(ownID, 1)
			rec := r.server.Records()[0]
			rec.LeaseID = 7
			asked := 0
			a.wasOurs = func(got subnet.Lease) bool { asked++; return ours && got == l }
			if got := a.holderOf(rec); (got == subnet.HolderGone) != ours || got == subnet.HolderUnknown {
				t.Errorf("ours %t: the holder is %d", ours, got)
			}
			if a.holderOf(rec); !ours {
				a.logged(t, "leaving a flannel node's lease with this node's public IP alone")
			}
		})
	}
}

// refusing is a store that refuses whatever is asked of it, or accepts and then loses the lease.
type refusing struct {
	subnet.Store
	claim     func(want subnet.Lease) (subnet.Record, error)
	hold      error
	challenge error
	requests  int // one at a time
}

func (s *refusing) Claim(_ context.Context, _ *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	s.requests++
	return s.claim(want)
}

func (s *refusing) Hold(ctx context.Context, _ subnet.Record, _ <-chan subnet.Lease) error {
	if s.hold == nil {
		<-ctx.Done()
	}
	return s.hold
}

func (s *refusing) Challenge(_ context.Context, r subnet.Record, _ time.Duration) (subnet.Record, bool, error) {
	s.requests++
	return r, false, s.challenge
}

// TestRefusedForAnHour: whatever a store answers, and whatever another process does to the lease, a node asks the store
// and logs a bounded number of times: a claim that fails is tried again every 10 s in the end, a lease that is lost is
// claimed again once a minute.
func TestRefusedForAnHour(t *testing.T) {
	const maxRequests, maxLines = 420, 70
	refuse := func(err error) func(subnet.Lease) (subnet.Record, error) {
		return func(subnet.Lease) (subnet.Record, error) { return subnet.Record{}, err }
	}
	n := 0
	accept := func(want subnet.Lease) (subnet.Record, error) {
		return subnet.Record{Lease: want, Name: want.Key(), Version: 1, Order: 1, LeaseID: 1}, nil
	}
	clone := subnet.Record{Lease: leaseOf(ownID, "10.5.0.64/27", 2), Name: "10.5.0.64-27", Version: 1, Order: -1, LeaseID: 1}
	younger := clone
	younger.Lease, younger.Name, younger.Order = leaseOf(ownID, "10.5.0.96/27", 1), "10.5.0.96-27", 1
	keep := func(subnet.Lease) (subnet.Record, error) { return younger, nil }
	other := subnet.Record{Lease: leaseOf(otherID, "10.5.0.32/27", 1), Name: "10.5.0.32-27", Version: 1, Order: 1, LeaseID: 1}
	for name, x := range map[string]struct {
		store refusing
		there []subnet.Record
	}{
		"an error": {store: refusing{claim: refuse(errors.New("no leader"))}},
		"another error each time": {store: refusing{claim: func(subnet.Lease) (subnet.Record, error) {
			n++
			return subnet.Record{}, fmt.Errorf("endpoint %d refuses", n)
		}}},
		"taken":                  {store: refusing{claim: refuse(subnet.ErrTaken)}},
		"full":                   {store: refusing{claim: refuse(subnet.ErrFull)}},
		"not allocated":          {store: refusing{claim: refuse(subnet.ErrNotAllocated)}},
		"lost":                   {store: refusing{claim: refuse(subnet.ErrLost)}},
		"lost at once":           {store: refusing{claim: accept, hold: subnet.ErrLost}},
		"rewritten at once":      {store: refusing{claim: accept, hold: fmt.Errorf("%w: %w", subnet.ErrLost, subnet.ErrRewritten)}},
		"deleted at once":        {store: refusing{claim: accept}},
		"a question fails":       {there: []subnet.Record{other}, store: refusing{claim: accept, challenge: errors.New("no leader")}},
		"a question is too late": {there: []subnet.Record{other}, store: refusing{claim: accept, challenge: subnet.ErrTaken}},
		"silent, and then taken": {there: []subnet.Record{other}, store: refusing{claim: refuse(subnet.ErrTaken)}},
		"a clone cannot be asked": {there: []subnet.Record{clone, younger},
			store: refusing{claim: keep, challenge: errors.New("no leader")}},
		"a clone changes its lease": {there: []subnet.Record{clone, younger},
			store: refusing{claim: keep, challenge: subnet.ErrTaken}},
		"silent, and then lost": {there: []subnet.Record{other}, store: refusing{claim: accept, hold: subnet.ErrLost}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := memstore.New()
				defer server.Close()
				store := x.store
				store.Store = server.Open(testTTL)
				l := newHolderLoopOn(t, &store, nil)
				l.begin.Do(func() {}) // there is no watch
				l.all.Apply(subnet.Event{Type: subnet.Page, Revision: 1, Put: x.there})
				l.all.Apply(subnet.Event{Type: subnet.Synced, Revision: 1})
				l.run(t, 30*time.Minute)
				early := store.requests
				l.run(t, 30*time.Minute)
				lines := strings.Count(l.out.String(), "\n")
				t.Logf("%d requests, %d of them in the first half, and %d lines", store.requests, early, lines)
				if store.requests > maxRequests || lines > maxLines {
					t.Errorf("%d requests and %d lines in an hour, want at most %d and %d",
						store.requests, lines, maxRequests, maxLines)
				}
				if store.requests == 0 {
					t.Error("nothing was tried")
				}
			})
		})
	}
}
