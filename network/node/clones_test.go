package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
)

// handovers counts how often each subnet's lease went from one public IP to another.
type handovers struct {
	mu    sync.Mutex
	last  map[string]netip.Addr
	count map[string]int
}

func (r *rivalry) countHandovers() *handovers {
	h := &handovers{last: map[string]netip.Addr{}, count: map[string]int{}}
	go r.server.Open(testTTL).Watch(r.t.Context(), func(e subnet.Event) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, p := range e.Put {
			ip := p.Endpoints[subnet.IPv4].PublicIP
			if was, ok := h.last[p.Name]; ok && was != ip {
				h.count[p.Name]++
			}
			h.last[p.Name] = ip
		}
		return nil
	})
	return h
}

// expectOneExchange checks that no lease was taken and given back more than once.
func (h *handovers) expectOneExchange(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, n := range h.count {
		if n > 2 {
			t.Errorf("%s went from one node to another %d times, want there and back at most", name, n)
		}
	}
}

// badLink is a client behind a link that loses packets.
type badLink struct {
	memstore.Expiring
	questions []error       // how the first questions end; nil: without an answer
	late      time.Duration // how late a Watch shows each change
}

func (s *badLink) Challenge(ctx context.Context, r subnet.Record, patience time.Duration) (subnet.Record, bool, error) {
	if len(s.questions) == 0 {
		return s.Expiring.Challenge(ctx, r, patience)
	}
	err := s.questions[0]
	s.questions = s.questions[1:]
	time.Sleep(patience)
	return r, false, err
}

func (s *badLink) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	return s.Expiring.Watch(ctx, func(e subnet.Event) error {
		time.Sleep(s.late)
		return changed(e)
	})
}

// badLinks are links over which two nodes that want one lease must come to terms as well.
func badLinks() map[string]badLink {
	lost := errors.New("deadline exceeded")
	return map[string]badLink{
		"good":                       {},
		"questions fail":             {questions: []error{lost, lost}},
		"questions fail for minutes": {questions: slices.Repeat([]error{lost}, 20)},
		"questions too late":         {questions: []error{subnet.ErrTaken, subnet.ErrTaken}},
		"no answer":                  {questions: []error{nil, nil}},
		"watch behind":               {late: time.Second},
	}
}

// addOn is [rivalry.add] with a client behind a link.
func (r *rivalry) addOn(link badLink, id string, ip byte) *contestant {
	c := r.add(id, ip)
	link.Expiring = r.server.Open(testTTL)
	c.leaseHolder.store = &link
	return c
}

// TestOneExchangeOverBadLinks: whichever of two clones, or of two nodes with one public IP, starts first, and whatever
// their links lose, a lease goes from one to the other and back at most once.
func TestOneExchangeOverBadLinks(t *testing.T) {
	for kind, x := range map[string]struct {
		id string
		ip byte
	}{"clones": {ownID, 2}, "one public IP": {otherID, 1}} {
		for order, apart := range map[string]time.Duration{"an hour": time.Hour, "a second": time.Second, "nothing": 0} {
			for name, link := range badLinks() {
				for _, both := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s apart/%s on both %t", kind, order, name, both), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							r := newRivalry(t)
							seen := r.countHandovers()
							own := badLink{}
							if both {
								own = link
							}
							a, b := r.addOn(own, ownID, 1), r.addOn(link, x.id, x.ip)
							a.start(t)
							wait(apart)
							b.start(t)
							wait(10 * time.Minute)
							seen.expectOneExchange(t)
							if a.instanceID == b.instanceID {
								t.Errorf("both have the instance id %s", a.instanceID)
							}
							r.calm(a, b)
						})
					})
				}
			}
		}
	}
}

// TestClonesStartAtOnce: two clones come back at one moment, and the store has the lease of the machine from which they
// were copied, of one of them, or of both.
func TestClonesStartAtOnce(t *testing.T) {
	for name, ip := range map[string]byte{"of the original": 7, "of the first": 1, "of the second": 2} {
		for link, x := range badLinks() {
			t.Run(name+"/"+link, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRivalry(t)
					first := r.add(ownID, ip)
					first.start(t)
					wait(time.Hour)
					first.kill()
					seen := r.countHandovers()
					a, b := r.addOn(x, ownID, 1), r.addOn(x, ownID, 2)
					a.start(t)
					b.start(t)
					wait(10 * time.Minute)
					// The lease of the original may go to one of them first.
					seen.expectOneExchange(t)
					if a.instanceID == b.instanceID {
						t.Errorf("both have the instance id %s", a.instanceID)
					}
					r.calm(a, b)
				})
			})
		}
	}
}
