package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// ask challenges the holder of r from another client.
func ask(t *testing.T, c Cluster, r subnet.Record, wait time.Duration) (now subnet.Record, alive bool, err error) {
	t.Helper()
	s, ok := c.Open(t).(subnet.Challenger)
	if !ok {
		t.Fatal("the store is no Challenger")
	}
	return s.Challenge(t.Context(), r, wait)
}

func challengeCases() []testCase {
	const (
		short = 200 * time.Millisecond // for holders that are gone
		long  = patience               // for those that are alive
	)
	// The record is held in the store that open returns, and its watch runs, as in a daemon.
	held := func(t *testing.T, w *Watcher, s subnet.Store, r subnet.Record) *holder {
		w.Reached(r.Version)
		return hold(t, s, r)
	}
	return []testCase{
		{"a holder answers, each time, and keeps its lease", func(t *testing.T, c Cluster) {
			s := c.OpenLasting(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := held(t, w, s, r)
			for range 3 {
				now, alive, err := ask(t, c, r, long)
				if err != nil || !alive || now.Lease != r.Lease || now.Version <= r.Version {
					t.Fatalf("alive %t, %+v became %+v, %v", alive, r, now, err)
				}
				w.Reached(now.Version)
				r = now
			}
			h.change(single(1, "b"))
			until(w, single(1, "b"))
		}},
		{"so does the holder of a reservation", func(t *testing.T, c Cluster) {
			s := c.OpenLasting(t)
			c.Write(t, "subnets/10.5.1.0-24", "{}")
			w := Watch(t, s, nil)
			open := w.Synced(1).Leases["10.5.1.0-24"]
			r := claim(t, s, &open, single(1, "a"))
			held(t, w, s, r)
			if now, alive, err := ask(t, c, r, long); err != nil || !alive || now.LeaseID != 0 {
				t.Errorf("alive %t, %+v, %v", alive, now, err)
			}
		}},
		{"a change in the same moment is written, and is an answer or a change", func(t *testing.T, c Cluster) {
			s := c.OpenLasting(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := held(t, w, s, r)
			go h.change(single(1, "b"))
			if _, alive, err := ask(t, c, r, long); !alive && !errors.Is(err, subnet.ErrTaken) {
				t.Errorf("alive %t, %v", alive, err)
			}
			until(w, single(1, "b"))
		}},
		{"one that is gone does not, and its record can be taken over as it is then", func(t *testing.T, c Cluster) {
			w := Watch(t, c.OpenLasting(t), nil)
			r := claim(t, c.OpenLasting(t), nil, single(1, "a"))
			w.Reached(r.Version)
			now, alive, err := ask(t, c, r, short)
			if err != nil || alive || now.Lease != r.Lease || now.Version <= r.Version || now.Order != r.Order {
				t.Fatalf("alive %t, %+v became %+v, %v", alive, r, now, err)
			}
			state := w.Reached(now.Version)
			same(t, state.Leases[r.Name], now)
			taken(t, c.Open(t), &r, single(1, "b"))
			says(t, claim(t, c.Open(t), &now, single(1, "b")), single(1, "b"))
		}},
		{"a holder that comes back answers", func(t *testing.T, c Cluster) {
			s := c.OpenLasting(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			w.Reached(r.Version)
			now, _, err := ask(t, c, r, short)
			if err != nil {
				t.Fatal(err)
			}
			w.Reached(now.Version)
			held(t, w, s, claim(t, s, &now, single(1, "a")))
			w.Until(func(state State) string {
				if state.Leases[r.Name].Version > now.Version {
					return ""
				}
				return "the record as the holder writes it again"
			})
		}},
		{"a record that has changed or is gone is not asked about", func(t *testing.T, c Cluster) {
			s := c.OpenLasting(t)
			w := Watch(t, s, nil)
			old := claim(t, s, nil, single(1, "a"))
			w.Reached(old.Version)
			r := claim(t, s, &old, single(1, "b"))
			if _, _, err := ask(t, c, old, long); !errors.Is(err, subnet.ErrTaken) {
				t.Errorf("%v of a record that has changed", err)
			}
			if err := s.Release(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ask(t, c, r, long); !errors.Is(err, subnet.ErrTaken) {
				t.Errorf("%v of a record that is gone", err)
			}
		}},
	}
}
