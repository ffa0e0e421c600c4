package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// claim claims what must be free.
func claim(t *testing.T, s subnet.Store, have *subnet.Record, want subnet.Lease) subnet.Record {
	t.Helper()
	r, err := s.Claim(t.Context(), have, want)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// same reports the difference between a record that was returned and what a watcher has of it.
func same(t *testing.T, got, want subnet.Record) {
	t.Helper()
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// says reports whether a record, whose name is its key, is of a lease.
func says(t *testing.T, r subnet.Record, want subnet.Lease) {
	t.Helper()
	if r.Name != want.Key() || r.Lease != want || r.Bad != nil {
		t.Errorf("the record is %+v\nwant of %s: %+v", r, want.Key(), want)
	}
}

func taken(t *testing.T, s subnet.Store, have *subnet.Record, want subnet.Lease) {
	t.Helper()
	if r, err := s.Claim(t.Context(), have, want); !errors.Is(err, subnet.ErrTaken) {
		t.Errorf("claim of %s gives %+v, %v; want ErrTaken", want.Key(), r, err)
	}
}

func claimCases() []testCase {
	cases := []testCase{
		{"what is claimed is seen as it was returned", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			for i, want := range []subnet.Lease{single(1, "a"), dual(2, "b"), lease(3, "c", subnet.IPv6)} {
				r := claim(t, s, nil, want)
				says(t, r, want)
				if r.LeaseID == 0 || r.Order != r.Version {
					t.Errorf("claimed: %+v", r)
				}
				state := w.Reached(r.Version)
				same(t, state.Leases[r.Name], r)
				if len(state.Leases) != i+1 || state.Changed(r.Name) != 1 {
					t.Errorf("%d leases, %d events", len(state.Leases), state.Changed(r.Name))
				}
			}
		}},
		{"a lost race changes nothing and the next try goes on", func(t *testing.T, c Cluster) {
			a, b := c.Open(t), c.Open(t)
			first := claim(t, a, nil, single(1, "a"))
			taken(t, b, nil, single(1, "b"))
			taken(t, b, nil, single(1, "b"))
			second := claim(t, b, nil, single(2, "b"))
			if first.LeaseID == second.LeaseID {
				t.Error("two nodes share an etcd lease")
			}
			state := Watch(t, a, nil).Synced(1)
			same(t, state.Leases[first.Name], first)
			same(t, state.Leases[second.Name], second)
		}},
		{"many at once for one subnet: one gets it", func(t *testing.T, c Cluster) {
			const n = 12
			var (
				wg  sync.WaitGroup
				mu  sync.Mutex
				got []subnet.Record
			)
			for i := range n {
				s := c.Open(t)
				wg.Go(func() {
					want := single(1, fmt.Sprint(i))
					if i%2 == 1 {
						want = dual(1, fmt.Sprint(i))
					}
					r, err := s.Claim(t.Context(), nil, want)
					if err == nil {
						mu.Lock()
						got = append(got, r)
						mu.Unlock()
					} else if !errors.Is(err, subnet.ErrTaken) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			state := Watch(t, c.Open(t), nil).Synced(1)
			if len(got) != 1 || len(state.Leases) != 1 {
				t.Fatalf("%d claims succeeded, there is %q", len(got), state.Names())
			}
			same(t, state.Leases[got[0].Name], got[0])
		}},
		{"many at once through one store for different subnets: all get theirs", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					if _, err := s.Claim(t.Context(), nil, single(i, "a")); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			leases := map[int64]string{}
			for key, r := range Watch(t, s, nil).Synced(1).Leases {
				if other, ok := leases[r.LeaseID]; ok {
					t.Errorf("%s and %s are on one etcd lease", key, other)
				}
				leases[r.LeaseID] = key
			}
			if len(leases) != 12 {
				t.Errorf("%d leases", len(leases))
			}
		}},
		{"subnets whose names start alike are different", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			for _, network := range []string{"10.5.1.0/24", "10.5.1.0/25", "10.5.10.0/24", "10.5.1.0/2"} {
				l := single(1, "a")
				l.Endpoints[subnet.IPv4].Subnet = netip.MustParsePrefix(network).Masked()
				claim(t, s, nil, l)
			}
		}},
		{"a lease that cannot be written down is an error", func(t *testing.T, c Cluster) {
			l := single(1, "a")
			l.Endpoints[subnet.IPv4].Data = "{"
			if _, err := c.Open(t).Claim(t.Context(), nil, l); err == nil || errors.Is(err, subnet.ErrTaken) {
				t.Errorf("the claim gives %v", err)
			}
		}},
	}
	both := []subnet.Lease{single(1, "x"), dual(1, "x")}
	other := dual(1, "x")
	other.Endpoints[subnet.IPv6].Subnet = netip.MustParsePrefix("fd00:5:0:99::/64")
	both = append(both, other)
	for i, there := range both {
		for j, want := range both {
			name := fmt.Sprintf("%s is taken by %s (%d %d)", want.Key(), there.Key(), i, j)
			cases = append(cases, testCase{name, func(t *testing.T, c Cluster) {
				claim(t, c.Open(t), nil, there)
				want.NodeName = "y"
				taken(t, c.Open(t), nil, want)
			}})
		}
	}
	return cases
}

func takeOverCases() []testCase {
	return []testCase{
		{"what is right already is not written", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			r := claim(t, c.Open(t), nil, single(1, "a"))
			same(t, claim(t, c.Open(t), &r, single(1, "a")), r)
			last := claim(t, c.Open(t), nil, single(9, "last"))
			if n := w.Reached(last.Version).Changed(r.Name); n != 1 {
				t.Errorf("%d events", n)
			}
		}},
		{"another value is one event", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			r := claim(t, c.Open(t), nil, single(1, "a"))
			w.Reached(r.Version) // else the two could arrive as one event
			now := claim(t, c.Open(t), &r, single(1, "b"))
			says(t, now, single(1, "b"))
			if now.Order != r.Order || now.Version <= r.Version || now.LeaseID != r.LeaseID {
				t.Errorf("%+v became %+v", r, now)
			}
			state := w.Reached(now.Version)
			same(t, state.Leases[r.Name], now)
			if n := state.Changed(r.Name); n != 2 {
				t.Errorf("%d events", n)
			}
		}},
		{"a record that changed since it was read is taken", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			now := claim(t, s, &r, single(1, "b"))
			taken(t, s, &r, single(1, "a"))
			taken(t, s, &r, dual(1, "a"))
			taken(t, s, &r, single(2, "a"))
			same(t, Watch(t, s, nil).Synced(1).Leases[r.Name], now)
		}},
		{"one that was written again the same is taken too", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			r := claim(t, s, nil, single(1, "a"))
			value, err := r.Value()
			if err != nil {
				t.Fatal(err)
			}
			c.Write(t, "subnets/"+r.Name, string(value)) // as a reservation
			taken(t, s, &r, single(1, "a"))
		}},
		{"a reservation stays one", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			want := single(1, "a")
			c.Write(t, "subnets/"+want.Key(), `{"PublicIP":"192.0.2.1"}`)
			w := Watch(t, s, nil)
			reserved := w.Synced(1).Leases[want.Key()]
			taken(t, s, nil, want)
			r := claim(t, s, &reserved, want)
			says(t, r, want)
			if r.LeaseID != 0 || r.Order != reserved.Order {
				t.Errorf("%+v became %+v", reserved, r)
			}
			same(t, w.Reached(r.Version).Leases[r.Name], r)
			same(t, claim(t, s, &r, want), r)
			wider := claim(t, s, &r, dual(1, "a"))
			if wider.LeaseID != 0 {
				t.Errorf("with another key it became %+v", wider)
			}
		}},
		{"a reservation that was withdrawn is gone", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			want := single(1, "a")
			c.Write(t, "subnets/"+want.Key(), `{"PublicIP":"192.0.2.1"}`)
			reserved := Watch(t, s, nil).Synced(1).Leases[want.Key()]
			c.Delete(t, "subnets/"+want.Key())
			taken(t, s, &reserved, want)
		}},
		{"another key takes the place of the first in one step", func(t *testing.T, c Cluster) {
			for i, step := range []struct{ from, to subnet.Lease }{
				{single(1, "a"), dual(1, "a")},
				{dual(2, "a"), single(2, "a")},
				{single(3, "a"), single(4, "a")},
				{dual(5, "a"), lease(5, "a", subnet.IPv6)},
			} {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					s := c.Open(t)
					w := Watch(t, c.Open(t), nil)
					w.Synced(1)
					r := claim(t, s, nil, step.from)
					now := claim(t, s, &r, step.to)
					says(t, now, step.to)
					if now.LeaseID != r.LeaseID {
						t.Errorf("%+v became %+v", r, now)
					}
					state := w.Reached(now.Version)
					same(t, state.Leases[now.Name], now)
					for _, e := range state.Events {
						if e.Type == subnet.Changed && e.Revision == now.Version {
							if len(e.Put) != 1 || len(e.Deleted) != 1 || e.Deleted[0] != r.Name {
								t.Errorf("the step is seen as %+v", e)
							}
						}
					}
				})
			}
		}},
		{"another key is taken if another record holds its subnet", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			there := []subnet.Record{claim(t, s, nil, single(1, "x")), claim(t, s, nil, dual(2, "x"))}
			mine := claim(t, s, nil, single(3, "a"))
			for _, want := range []subnet.Lease{single(1, "a"), dual(1, "a"), single(2, "a"), dual(2, "a")} {
				taken(t, s, &mine, want)
			}
			state := Watch(t, s, nil).Synced(1)
			for _, r := range append(there, mine) {
				same(t, state.Leases[r.Name], r)
			}
		}},
		{"a wider key does not hide a second one of the same subnet", func(t *testing.T, c Cluster) {
			// Two keys of one subnet: made by hand, or by flannel, which looks at one key only.
			s := c.Open(t)
			mine := claim(t, s, nil, single(1, "a"))
			c.Write(t, "subnets/10.5.1.0-24&fd00:5:0:50::-64", "{}")
			taken(t, s, &mine, dual(1, "a"))
			same(t, claim(t, s, &mine, single(1, "a")), mine)
		}},
	}
}
