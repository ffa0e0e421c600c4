package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// holder runs a store's Hold.
type holder struct {
	t       *testing.T
	changed chan subnet.Lease
	stop    context.CancelFunc
	ended   chan struct{}
	err     error // of Hold, once it has ended
}

func hold(t *testing.T, s subnet.Store, r subnet.Record) *holder {
	ctx, cancel := context.WithCancel(context.Background())
	h := &holder{t: t, changed: make(chan subnet.Lease), stop: cancel, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		h.err = s.Hold(ctx, r, h.changed)
	}()
	t.Cleanup(func() {
		select {
		case <-h.ended: // and what it returned was looked at
		default:
			cancel()
			h.end(nil)
		}
	})
	return h
}

// end waits for the end of Hold and checks what it returned.
func (h *holder) end(want error) {
	h.t.Helper()
	select {
	case <-h.ended:
		if !errors.Is(h.err, want) {
			h.t.Errorf("Hold returned %v, want %v", h.err, want)
		}
	case <-time.After(patience):
		h.t.Errorf("Hold did not return within %s", patience)
	}
}

// change hands a lease to Hold, and reports whether it was taken.
func (h *holder) change(l subnet.Lease) bool {
	h.t.Helper()
	select {
	case h.changed <- l:
		return true
	case <-h.ended:
	case <-time.After(patience):
		h.t.Errorf("Hold did not take a change within %s", patience)
	}
	return false
}

// until waits for a value under a key.
func until(w *Watcher, want subnet.Lease) State {
	w.t.Helper()
	value, err := want.Value()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.Until(func(s State) string {
		if string(s.Leases[want.Key()].Value) != string(value) {
			return fmt.Sprintf("%s = %s; it is %s", want.Key(), value, s.Leases[want.Key()].Value)
		}
		return ""
	})
}

func holdCases() []testCase {
	return []testCase{
		{"what is held outlives what is not, and nobody hears of it", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, c.Open(t), nil)
			r := claim(t, s, nil, single(1, "a"))
			hold(t, s, r)
			for n := range 2 { // for two lifetimes of a lease, each told by one that nobody holds
				other := claim(t, s, nil, single(10+n, "b"))
				w.Reached(other.Modified)
				state := w.Gone(other.Key)
				same(t, state.Leases[r.Key], r)
				if n := state.Changed(r.Key); n > 1 {
					t.Errorf("%d events", n)
				}
			}
		}},
		{"what changes is written, the last state in the end", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, c.Open(t), nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			for i := range 5 {
				h.change(single(1, fmt.Sprint(i)))
			}
			state := until(w, single(1, "4"))
			if got := state.Leases[r.Key]; got.LeaseID != r.LeaseID || got.Created != r.Created {
				t.Errorf("%+v became %+v", r, got)
			}
			h.change(single(1, "4"))
			h.change(dual(1, "wider"))
			state = until(w, dual(1, "wider"))
			if len(state.Leases) != 1 {
				t.Errorf("there is %q", state.Keys())
			}
		}},
		{"nothing more to change is no end", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			close(h.changed)
			other := claim(t, s, nil, single(2, "b"))
			w.Reached(other.Modified)
			same(t, w.Gone(other.Key).Leases[r.Key], r)
		}},
		{"a reservation is held without a lease", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, s, nil)
			r := w.Synced(1).Leases["10.5.1.0-24"]
			h := hold(t, s, r)
			h.change(single(1, "a"))
			if got := until(w, single(1, "a")).Leases[r.Key]; got.LeaseID != 0 || got.Created != r.Created {
				t.Errorf("%+v became %+v", r, got)
			}
		}},
		{"a key that is deleted is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Delete(t, "subnets/"+r.Key)
			h.end(subnet.ErrLost)
		}},
		{"a key that was deleted before is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			c.Delete(t, "subnets/"+r.Key)
			hold(t, s, r).end(subnet.ErrLost)
		}},
		{"a key that somebody else wrote is lost and stays", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Write(t, "subnets/"+r.Key, "mine")
			h.end(subnet.ErrLost)
			w.Until(func(s State) string {
				if string(s.Leases[r.Key].Value) != "mine" {
					return "what somebody else wrote"
				}
				return ""
			})
		}},
		{"a change to a key that somebody else wrote is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, c.Open(t), nil)
			r := w.Synced(1).Leases["10.5.1.0-24"]
			h := hold(t, s, r)
			c.Write(t, "subnets/"+r.Key, "mine")
			h.change(single(1, "a")) // or it has seen it before
			h.end(subnet.ErrLost)
			if got := w.Until(func(s State) string {
				if s.Changed(r.Key) == 0 {
					return "a change"
				}
				return ""
			}).Leases[r.Key]; string(got.Value) != "mine" {
				t.Errorf("there is %+v", got)
			}
		}},
		{"a lease whose time is over is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Expire(t, r)
			h.end(subnet.ErrLost)
		}},
		{"a reservation that is withdrawn is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, s, nil)
			r := w.Synced(1).Leases["10.5.1.0-24"]
			h := hold(t, s, r)
			c.Delete(t, "subnets/10.5.1.0-24")
			h.end(subnet.ErrLost)
		}},
		{"it ends with its context and leaves the lease", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			h.stop()
			h.end(nil)
			same(t, Watch(t, s, nil).Synced(1).Leases[r.Key], r)
		}},
	}
}

func releaseCases() []testCase {
	return []testCase{
		{"a released subnet is free", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			w.Synced(1)
			r := claim(t, s, nil, dual(1, "a"))
			if err := s.Release(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			now := claim(t, c.Open(t), nil, single(1, "b"))
			if keys := w.Reached(now.Modified).Keys(); len(keys) != 1 || keys[0] != now.Key {
				t.Errorf("there is %q", keys)
			}
		}},
		{"one that is gone already is no error", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			for range 2 {
				if err := s.Release(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		}},
		{"one that somebody else changed stays", func(t *testing.T, c Cluster) {
			s, other := c.Open(t), c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			now := claim(t, other, &r, single(1, "b"))
			if err := s.Release(t.Context(), r); !errors.Is(err, subnet.ErrLost) {
				t.Errorf("Release returned %v", err)
			}
			same(t, Watch(t, s, nil).Synced(1).Leases[r.Key], now)
		}},
		{"one that Hold changed is still our own", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			h.change(dual(1, "b"))
			until(w, dual(1, "b"))
			h.change(dual(1, "b")) // it takes this one when it is done with the other
			h.stop()
			h.end(nil)
			if err := s.Release(t.Context(), r); err != nil {
				t.Errorf("Release returned %v", err)
			}
			w.Gone("10.5.1.0-24&fd00:5:0:1::-64")
		}},
	}
}
