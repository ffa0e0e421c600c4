package storetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
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
			c.put(t, 1, "one")
			c.put(t, 2, "two")
			w := Watch(t, c.Open(t), nil)
			s := w.Synced(1)
			if got := s.Names(); !slices.Equal(got, c.names(1, 2)) {
				t.Errorf("the snapshot has %q", got)
			}
			one := s.Leases[c.name(1)]
			if one.Bad != nil || one.NodeName != "one" || one.Endpoints != single(1, "").Endpoints ||
				one.LeaseID != 0 || c.Nodes == nil && one.Order > one.Version ||
				one.Version >= s.Leases[c.name(2)].Version {
				t.Errorf("the snapshot has %+v", one)
			}
			c.put(t, 1, "one again")
			c.put(t, 3, "three")
			c.drop(t, 2)
			c.put(t, 4, "four")
			s = w.There(c.name(4))
			if got := s.Names(); !slices.Equal(got, c.names(1, 3, 4)) {
				t.Errorf("after the changes there is %q", got)
			}
			got := s.Leases[c.name(1)]
			if got.NodeName != "one again" || got.Order != one.Order || got.Version <= one.Version {
				t.Errorf("%+v has become %+v", one, got)
			}
			if s.Synced != 1 {
				t.Errorf("%d snapshots", s.Synced)
			}
		}},
		{"more leases than fit on a page", func(t *testing.T, c Cluster) {
			const n = 2050
			for i := range n {
				c.put(t, i, "node")
			}
			if s := Watch(t, c.Open(t), nil).Synced(1); len(s.Leases) != n {
				t.Errorf("%d leases of %d", len(s.Leases), n)
			}
		}},
		{"a config that is written, changed, deleted and written again", func(t *testing.T, c Cluster) {
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
			c.Write(t, "config", "") // of no use, but it exists: a watcher can tell the two apart
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
		{"watchers of one store do not disturb each other", func(t *testing.T, c Cluster) {
			s := c.Open(t)
			one, two := Watch(t, s, nil), Watch(t, s, nil)
			one.Synced(1)
			two.Synced(1)
			c.put(t, 1, "")
			one.There(c.name(1))
			two.There(c.name(1))
			if err := one.Stop(); err != nil {
				t.Error(err)
			}
			c.put(t, 2, "")
			two.There(c.name(2))
		}},
		{"a slow callback misses nothing", func(t *testing.T, c Cluster) {
			blocked, open := make(chan struct{}), make(chan struct{})
			w := Watch(t, c.Open(t), func(e subnet.Event) {
				if e.Type == subnet.Changed && len(e.Put) > 0 && e.Put[0].Name == c.name(1) {
					close(blocked)
					<-open
				}
			})
			w.Synced(1)
			c.put(t, 1, "")
			<-blocked
			for i := range 200 {
				c.put(t, 10+i, "")
			}
			for i := range 100 {
				c.drop(t, 10+i)
			}
			c.put(t, 2, "")
			close(open)
			if s := w.There(c.name(2)); len(s.Leases) != 102 || s.Synced != 1 {
				t.Errorf("%d leases, %d snapshots", len(s.Leases), s.Synced)
			}
		}},
		{"an error of the callback ends it", func(t *testing.T, c Cluster) {
			for _, when := range []subnet.EventType{subnet.Page, subnet.Synced, subnet.Changed} {
				c.put(t, 1, "before")
				enough := errors.New("enough")
				calls := 0
				err := c.Open(t).Watch(t.Context(), func(e subnet.Event) error {
					if calls > 0 {
						calls++
					}
					if e.Type == subnet.Synced {
						c.put(t, 1, "after")
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

// written is a value as an operator writes it by hand.
func written(name string) string {
	return `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan",` +
		`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"NodeName":"` + name + `"}`
}

func keyCases() []testCase {
	return []testCase{
		{"keys that are no leases come as malformed records", func(t *testing.T, c Cluster) {
			bad := []string{"10.5.1.0", "10.5.1.0-24/x", "a/b/c", "\xff\xfe", "10.5.1.0-24 ", "Ω"}
			slices.Sort(bad)
			for _, key := range bad {
				c.Write(t, "subnets/"+key, written("in the snapshot"))
			}
			w := Watch(t, c.Open(t), nil)
			before := w.Synced(1)
			if got := before.Names(); !slices.Equal(got, bad) {
				t.Errorf("the snapshot has %q, want %q", got, bad)
			}
			for _, key := range bad {
				c.Write(t, "subnets/"+key, written("changed"))
			}
			c.put(t, 9, "last")
			after := w.There(c.name(9))
			for _, key := range bad {
				if r := after.Leases[key]; r.Bad == nil || r.Name != key || r.Version <= before.Leases[key].Version {
					t.Errorf("%q was not seen to change: %+v", key, r)
				}
			}
		}},
		{"a malformed value comes with its reason and with the key's subnets", func(t *testing.T, c Cluster) {
			c.Write(t, "subnets/10.5.1.0-24", "not JSON")
			r := Watch(t, c.Open(t), nil).Synced(1).Leases["10.5.1.0-24"]
			var want subnet.Lease
			want.Endpoints[subnet.IPv4].Subnet = netip.MustParsePrefix("10.5.1.0/24")
			if r.Bad == nil || !strings.Contains(r.Bad.Error(), "not JSON") || r.Lease != want {
				t.Errorf("the record is %+v", r)
			}
		}},
		{"other keys below the prefix are ignored", func(t *testing.T, c Cluster) {
			write := func(value string) {
				for _, key := range []string{
					"other", "config/x", "configuration", "subnet", "subnets2/10.5.1.0-24", "subnetsx",
				} {
					c.Write(t, key, value)
				}
			}
			write("before")
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			write("after")
			c.put(t, 9, "last")
			if s := w.There(c.name(9)); len(s.Leases) != 1 || s.Config != nil || s.ConfigSet != 1 {
				t.Errorf("leases %q, config %q", s.Names(), s.Config)
			}
		}},
	}
}
