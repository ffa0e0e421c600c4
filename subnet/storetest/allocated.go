package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// unallocated is a lease as a node claims it that does not know its subnets: with a public IP in each family.
func unallocated(name string, families ...subnet.Family) subnet.Lease {
	l := lease(0, name, families...)
	for _, f := range families {
		l.Endpoints[f].Subnet = netip.Prefix{}
	}
	return l
}

// subnetsOf returns the subnets of a lease in the given families, in their order.
func subnetsOf(l subnet.Lease, families ...subnet.Family) (all []netip.Prefix) {
	for _, f := range families {
		all = append(all, l.Endpoints[f].Subnet)
	}
	return all
}

func allocatedCases() []testCase {
	both := []subnet.Family{subnet.IPv4, subnet.IPv6}
	ready := func(t *testing.T, c Cluster, name string, n int) subnet.Store {
		c.Nodes.Add(t, name)
		c.Nodes.Allocate(t, name, subnetsOf(dual(n, ""), both...)...)
		return c.Nodes.Open(t, name)
	}
	return []testCase{
		{"a claim returns the subnets that the store gave", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			s := ready(t, c, "one", 1)
			r := claim(t, s, nil, unallocated("a", both...))
			if r.Name != "one" || r.Lease != dual(1, "a") || r.Bad != nil || r.LeaseID != 0 || r.Order <= 0 {
				t.Errorf("the record is %+v", r)
			}
			same(t, w.Reached(r.Version).Leases["one"], r)
		}},
		{"a family without a public IP has no part", func(t *testing.T, c Cluster) {
			s := ready(t, c, "one", 1)
			if r := claim(t, s, nil, unallocated("a", subnet.IPv4)); r.Lease != single(1, "a") {
				t.Errorf("the record is %+v", r)
			}
		}},
		{"a node without a subnet waits, and one in each family it needs", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			s := c.Nodes.Open(t, "one")
			want := unallocated("a", both...)
			none := func() {
				t.Helper()
				if r, err := s.Claim(t.Context(), nil, want); !errors.Is(err, subnet.ErrNotAllocated) {
					t.Errorf("the claim gives %+v, %v", r, err)
				}
			}
			none() // the node is not known
			c.Nodes.Add(t, "one")
			none()
			c.Nodes.Allocate(t, "one", subnetsOf(single(1, ""), subnet.IPv4)...)
			none()
			if got := w.Synced(1).Leases; len(got) > 0 {
				t.Errorf("there is %v", got)
			}
			c.Nodes.Allocate(t, "one", subnetsOf(dual(1, ""), both...)...)
			if r := claim(t, s, nil, want); r.Lease != dual(1, "a") {
				t.Errorf("the record is %+v", r)
			}
		}},
		{"a subnet that comes later is reported", func(t *testing.T, c Cluster) {
			s := c.Nodes.Open(t, "one")
			w := Watch(t, s, nil)
			w.Synced(1)
			a := s.(subnet.Allocator)
			none := func() int64 {
				t.Helper()
				before := a.Allocation()
				r, err := s.Claim(t.Context(), nil, unallocated("a", both...))
				if !errors.Is(err, subnet.ErrNotAllocated) {
					t.Errorf("the claim gives %+v, %v", r, err)
				}
				return before
			}
			changes := func(before int64, do func()) {
				t.Helper()
				n := len(w.Now().Events)
				do()
				w.Until(func(s State) string {
					if now := a.Allocation(); len(s.Events) == n || now == before {
						return fmt.Sprintf("an event; the allocation is %d", now)
					}
					return ""
				})
			}
			changes(none(), func() { c.Nodes.Add(t, "one") })
			changes(none(), func() { c.Nodes.Allocate(t, "one", subnetsOf(dual(1, ""), both...)...) })
			if r := claim(t, s, nil, unallocated("a", both...)); r.Lease != dual(1, "a") {
				t.Errorf("the record is %+v", r)
			}
		}},
		{"what is right already is not written", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			s := ready(t, c, "one", 1)
			r := claim(t, s, nil, unallocated("a", both...))
			w.Reached(r.Version)
			same(t, claim(t, s, &r, unallocated("a", both...)), r)
			same(t, claim(t, c.Nodes.Open(t, "one"), nil, unallocated("a", both...)), r)
			now := claim(t, s, nil, unallocated("b", both...))
			if now.Order != r.Order || now.Version <= r.Version || now.NodeName != "b" {
				t.Errorf("%+v became %+v", r, now)
			}
			if n := w.Reached(now.Version).Changed("one"); n != 2 {
				t.Errorf("%d events", n)
			}
		}},
		{"two nodes with one subnet both have a record", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			one := claim(t, ready(t, c, "one", 1), nil, unallocated("a", both...))
			two := claim(t, ready(t, c, "two", 1), nil, unallocated("b", both...))
			state := w.Reached(two.Version)
			same(t, state.Leases["one"], one)
			same(t, state.Leases["two"], two)
			if one.Order > two.Order {
				t.Errorf("the second is older: %d, %d", one.Order, two.Order)
			}
		}},
		{"a node that comes again with another subnet keeps its name", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			s := ready(t, c, "one", 1)
			claim(t, s, nil, unallocated("a", both...))
			w.There("one")
			c.Nodes.Remove(t, "one")
			w.Gone("one")
			c.Nodes.Add(t, "one")
			c.Nodes.Allocate(t, "one", subnetsOf(dual(2, ""), both...)...)
			r := claim(t, s, nil, unallocated("a", both...))
			if r.Lease != dual(2, "a") {
				t.Errorf("the record is %+v", r)
			}
			same(t, w.Reached(r.Version).Leases["one"], r)
		}},
		{"what changes is written, the last state in the end", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			s := ready(t, c, "one", 1)
			r := claim(t, s, nil, unallocated("a", both...))
			h := hold(t, s, r)
			for _, name := range []string{"b", "c", "d"} {
				h.change(dual(1, name))
			}
			w.Until(func(s State) string {
				if s.Leases["one"].Lease != dual(1, "d") {
					return "the last state"
				}
				return ""
			})
			h.change(dual(1, "d")) // it takes this one when it is done with the other
			h.stop()
			h.end(nil)
			if err := s.Release(t.Context(), r); err != nil {
				t.Errorf("Release returned %v", err)
			}
			w.Gone("one")
		}},
		{"a node that is removed has lost its lease", func(t *testing.T, c Cluster) {
			s := ready(t, c, "one", 1)
			h := hold(t, s, claim(t, s, nil, unallocated("a", both...)))
			c.Nodes.Remove(t, "one")
			h.end(subnet.ErrLost)
		}},
		{"a record that another process changed is lost and stays", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			s := ready(t, c, "one", 1)
			r := claim(t, s, nil, unallocated("a", both...))
			h := hold(t, s, r)
			c.Nodes.Publish(t, "one", dual(1, "theirs"))
			h.end(subnet.ErrLost)
			if err := s.Release(t.Context(), r); !errors.Is(err, subnet.ErrLost) {
				t.Errorf("Release returned %v", err)
			}
			w.Until(func(s State) string {
				if s.Leases["one"].Lease != dual(1, "theirs") {
					return "what another process wrote"
				}
				return ""
			})
		}},
		{"one that is released is no lease, until it is claimed again", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			s := ready(t, c, "one", 1)
			r := claim(t, s, nil, unallocated("a", both...))
			w.There("one")
			for range 2 {
				if err := s.Release(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
			w.Gone("one")
			r = claim(t, s, nil, unallocated("a", both...))
			if got := w.Reached(r.Version).Names(); !slices.Equal(got, []string{"one"}) {
				t.Errorf("there is %q", got)
			}
		}},
	}
}
