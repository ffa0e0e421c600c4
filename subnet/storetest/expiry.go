package storetest

import (
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func expiryCases() []testCase {
	return []testCase{
		{"a subnet is free again when its lease has expired", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			w.Reached(r.Version)
			c.Expire(t, r)
			w.Gone(r.Name)
			claim(t, s, nil, dual(1, "b"))
		}},
		{"a record whose lease has expired is claimed again", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			for i, want := range []subnet.Lease{single(1, "a"), single(1, "b"), dual(1, "c")} {
				old := claim(t, s, nil, single(1, "a"))
				w.Reached(old.Version)
				c.Expire(t, old)
				w.Gone(old.Name)
				r := claim(t, s, &old, want)
				says(t, r, want)
				if r.LeaseID == old.LeaseID || r.LeaseID == 0 || r.Order <= old.Order {
					t.Errorf("%d: %+v became %+v", i, old, r)
				}
				if err := s.Release(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		}},
		{"one whose lease has expired and that another node got is taken", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			old := claim(t, s, nil, single(1, "a"))
			w.Reached(old.Version)
			c.Expire(t, old)
			w.Gone(old.Name)
			other := claim(t, c.Open(t), nil, dual(1, "b"))
			taken(t, s, &old, single(1, "a"))
			same(t, w.Reached(other.Version).Leases[other.Name], other)
		}},
		{"what is held outlives what is not, and no watcher is notified", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, c.Open(t), nil)
			r := claim(t, s, nil, single(1, "a"))
			hold(t, s, r)
			for n := range 2 { // for two lifetimes of a lease, each measured by one that is not held
				other := claim(t, s, nil, single(10+n, "b"))
				w.Reached(other.Version)
				state := w.Gone(other.Name)
				same(t, state.Leases[r.Name], r)
				if n := state.Changed(r.Name); n > 1 {
					t.Errorf("%d events", n)
				}
			}
		}},
		{"nothing more to change is no end", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			close(h.changed)
			other := claim(t, s, nil, single(2, "b"))
			w.Reached(other.Version)
			same(t, w.Gone(other.Name).Leases[r.Name], r)
		}},
		{"a lease that expired is lost", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			c.Expire(t, r)
			h.end(subnet.ErrLost)
		}},
	}
}
