package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func watchCases() []testCase {
	return []testCase{
		{"an empty store is a snapshot of nothing", func(t *testing.T, c Cluster) {
			s := Watch(t, c.Open(t), nil).Synced(1)
			if len(s.Leases) > 0 || s.Config != nil || len(s.Events) != 1 {
				t.Errorf("events %v", s.Events)
			}
		}},
		{"a snapshot, then changes in their order", func(t *testing.T, c Cluster) {
			c.Write(t, "subnets/10.5.1.0-24", "one")
			c.Write(t, "subnets/10.5.2.0-24", "two")
			w := Watch(t, c.Open(t), nil)
			s := w.Synced(1)
			if got := s.Keys(); !slices.Equal(got, []string{"10.5.1.0-24", "10.5.2.0-24"}) {
				t.Errorf("the snapshot has %q", got)
			}
			one := s.Leases["10.5.1.0-24"]
			if string(one.Value) != "one" || one.Created != one.Modified || one.LeaseID != 0 || one.Modified >= s.Leases["10.5.2.0-24"].Modified {
				t.Errorf("the snapshot has %+v", one)
			}
			c.Write(t, "subnets/10.5.1.0-24", "one again")
			c.Write(t, "subnets/10.5.3.0-24", "three")
			c.Delete(t, "subnets/10.5.2.0-24")
			c.Write(t, "subnets/10.5.4.0-24", "four")
			s = w.There("10.5.4.0-24")
			if got := s.Keys(); !slices.Equal(got, []string{"10.5.1.0-24", "10.5.3.0-24", "10.5.4.0-24"}) {
				t.Errorf("after the changes there is %q", got)
			}
			if got := s.Leases["10.5.1.0-24"]; string(got.Value) != "one again" || got.Created != one.Created || got.Modified <= one.Modified {
				t.Errorf("%+v has become %+v", one, got)
			}
			if s.Synced != 1 {
				t.Errorf("%d snapshots", s.Synced)
			}
		}},
		{"more leases than go on a page", func(t *testing.T, c Cluster) {
			const n = 2050
			for i := range n {
				c.Write(t, fmt.Sprintf("subnets/10.%d.%d.0-24", i/256, i%256), "value")
			}
			if s := Watch(t, c.Open(t), nil).Synced(1); len(s.Leases) != n {
				t.Errorf("%d leases of %d", len(s.Leases), n)
			}
		}},
		{"a config that comes, changes, goes and comes back", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			for _, config := range []string{`{"Network":"10.5.0.0/16"}`, `{"Network":"10.6.0.0/16"}`} {
				c.Write(t, "config", config)
				w.Until(func(s State) string {
					if string(s.Config) != config {
						return "config " + config
					}
					return ""
				})
			}
			c.Delete(t, "config")
			w.Until(func(s State) string {
				if s.Config != nil {
					return "the end of the config"
				}
				return ""
			})
			c.Write(t, "config", "") // not what is wanted, but there: the two are told apart
			s := w.Until(func(s State) string {
				if s.Config == nil {
					return "an empty config"
				}
				return ""
			})
			if s.ConfigSet != 5 { // with the snapshot's
				t.Errorf("%d events speak of the config", s.ConfigSet)
			}
			if late := Watch(t, c.Open(t), nil).Synced(1); late.Config == nil || len(late.Config) > 0 {
				t.Errorf("a later snapshot has config %q", late.Config)
			}
		}},
		{"a config that was there before", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			if s := Watch(t, c.Open(t), nil).Synced(1); string(s.Config) != "{}" {
				t.Errorf("config %q", s.Config)
			}
		}},
		{"keys that are no leases come as they are", func(t *testing.T, c Cluster) {
			bad := []string{"10.5.1.0", "10.5.1.0-24/x", "a/b/c", "\xff\xfe", "10.5.1.0-24 ", "Ω"}
			slices.Sort(bad)
			for _, key := range bad {
				c.Write(t, "subnets/"+key, "in the snapshot")
			}
			w := Watch(t, c.Open(t), nil)
			if got := w.Synced(1).Keys(); !slices.Equal(got, bad) {
				t.Errorf("the snapshot has %q, want %q", got, bad)
			}
			for _, key := range bad {
				c.Write(t, "subnets/"+key, "changed")
			}
			c.Write(t, "subnets/10.5.9.0-24", "last")
			for key, r := range w.There("10.5.9.0-24").Leases {
				if string(r.Value) == "in the snapshot" {
					t.Errorf("%q was not seen to change", key)
				}
			}
		}},
		{"other keys below the prefix are nobody's", func(t *testing.T, c Cluster) {
			write := func(value string) {
				for _, key := range []string{"other", "config/x", "configuration", "subnet", "subnets2/10.5.1.0-24", "subnetsx"} {
					c.Write(t, key, value)
				}
			}
			write("before")
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			write("after")
			c.Write(t, "subnets/10.5.9.0-24", "last")
			if s := w.There("10.5.9.0-24"); len(s.Leases) != 1 || s.Config != nil || s.ConfigSet != 1 {
				t.Errorf("leases %q, config %q", s.Keys(), s.Config)
			}
		}},
		{"watchers of one store do not disturb each other", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			one, two := Watch(t, s, nil), Watch(t, s, nil)
			one.Synced(1)
			two.Synced(1)
			c.Write(t, "subnets/10.5.1.0-24", "")
			one.There("10.5.1.0-24")
			two.There("10.5.1.0-24")
			if err := one.Stop(); err != nil {
				t.Error(err)
			}
			c.Write(t, "subnets/10.5.2.0-24", "")
			two.There("10.5.2.0-24")
		}},
		{"a slow callback misses nothing", func(t *testing.T, c Cluster) {
			blocked, open := make(chan struct{}), make(chan struct{})
			w := Watch(t, c.Open(t), func(e subnet.Event) {
				if e.Type == subnet.Changed && len(e.Put) > 0 && e.Put[0].Key == "first" {
					close(blocked)
					<-open
				}
			})
			w.Synced(1)
			c.Write(t, "subnets/first", "")
			<-blocked
			for i := range 200 {
				c.Write(t, fmt.Sprintf("subnets/%d", i), "")
			}
			for i := range 100 {
				c.Delete(t, fmt.Sprintf("subnets/%d", i))
			}
			c.Write(t, "subnets/last", "")
			close(open)
			if s := w.There("last"); len(s.Leases) != 102 || s.Synced != 1 {
				t.Errorf("%d leases, %d snapshots", len(s.Leases), s.Synced)
			}
		}},
		{"an error of the callback ends it", func(t *testing.T, c Cluster) {
			for _, when := range []subnet.EventType{subnet.Page, subnet.Synced, subnet.Changed} {
				c.Write(t, "subnets/10.5.1.0-24", "before")
				enough := errors.New("enough")
				calls := 0
				err := c.Open(t).Watch(t.Context(), func(e subnet.Event) error {
					if calls > 0 {
						calls++
					}
					if e.Type == subnet.Synced {
						c.Write(t, "subnets/10.5.1.0-24", "after")
					}
					if e.Type == when {
						calls++
						return enough
					}
					return nil
				})
				if !errors.Is(err, enough) || calls != 1 {
					t.Errorf("an error at event type %d: Watch returned %v after %d calls", when, err, calls)
				}
			}
		}},
		{"it ends with its context", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			if err := w.Stop(); err != nil {
				t.Errorf("Watch returned %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := c.Open(t).Watch(ctx, func(subnet.Event) error { return nil }); err != nil {
				t.Errorf("Watch with a context that is over returned %v", err)
			}
		}},
	}
}
