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

// until waits for the record of a lease.
func until(w *Watcher, want subnet.Lease) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if r := s.Leases[want.Key()]; r.Bad != nil || r.Lease != want {
			return fmt.Sprintf("%+v under %s; it is %+v", want, want.Key(), r)
		}
		return ""
	})
}

func holdCases() []testCase {
	return []testCase{
		{"what changes is written, the last state in the end", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, c.Open(t), nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			for i := range 5 {
				h.change(single(1, fmt.Sprint(i)))
			}
			state := until(w, single(1, "4"))
			if got := state.Leases[r.Name]; got.LeaseID != r.LeaseID || got.Order != r.Order {
				t.Errorf("%+v became %+v", r, got)
			}
			h.change(single(1, "4"))
			h.change(dual(1, "wider"))
			state = until(w, dual(1, "wider"))
			if len(state.Leases) != 1 {
				t.Errorf("there is %q", state.Names())
			}
		}},
		{"a reservation is held without a lease", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, s, nil)
			r := w.Synced(1).Leases["10.5.1.0-24"]
			h := hold(t, s, r)
			h.change(single(1, "a"))
			if got := until(w, single(1, "a")).Leases[r.Name]; got.LeaseID != 0 || got.Order != r.Order {
				t.Errorf("%+v became %+v", r, got)
			}
		}},
		{"a key that is deleted is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Delete(t, "subnets/"+r.Name)
			h.end(subnet.ErrLost)
		}},
		{"a key that was deleted before is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			c.Delete(t, "subnets/"+r.Name)
			hold(t, s, r).end(subnet.ErrLost)
		}},
		{"a key that another process wrote is lost and stays", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Write(t, "subnets/"+r.Name, "theirs") // malformed
			h.end(subnet.ErrLost)
			w.Until(func(s State) string {
				if s.Leases[r.Name].Bad == nil {
					return "what another process wrote"
				}
				return ""
			})
		}},
		{"a change to a key that another process wrote is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, c.Open(t), nil)
			r := w.Synced(1).Leases["10.5.1.0-24"]
			h := hold(t, s, r)
			c.Write(t, "subnets/"+r.Name, "theirs") // malformed
			h.change(single(1, "a"))                // or it has seen it before
			h.end(subnet.ErrLost)
			if got := w.Until(func(s State) string {
				if s.Changed(r.Name) == 0 {
					return "a change"
				}
				return ""
			}).Leases[r.Name]; got.Bad == nil {
				t.Errorf("there is %+v", got)
			}
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
			same(t, Watch(t, s, nil).Synced(1).Leases[r.Name], r)
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
			if keys := w.Reached(now.Version).Names(); len(keys) != 1 || keys[0] != now.Name {
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
		{"one that another process changed stays", func(t *testing.T, c Cluster) {
			s, other := c.Open(t), c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			now := claim(t, other, &r, single(1, "b"))
			if err := s.Release(t.Context(), r); !errors.Is(err, subnet.ErrLost) {
				t.Errorf("Release returned %v", err)
			}
			same(t, Watch(t, s, nil).Synced(1).Leases[r.Name], now)
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
