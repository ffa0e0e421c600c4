package memstore

import (
	"net/netip"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

func TestStore(t *testing.T) {
	kind := storetest.Kind{Expires: true, Challenges: true}
	fresh := func(t *testing.T) storetest.Cluster {
		s := New()
		t.Cleanup(s.Close)
		c := cluster(s)
		c.Open = func(*testing.T) subnet.Store { return s.Open(time.Second) }
		c.OpenLasting = func(*testing.T) subnet.Store { return s.Open(24 * time.Hour) }
		c.Expire = func(_ *testing.T, r subnet.Record) { s.Expire(r) }
		return c
	}
	storetest.Run(t, kind, fresh)
	storetest.RunHarm(t, kind, fresh)
}

func TestAllocatingStore(t *testing.T) {
	kind := storetest.Kind{Allocates: true}
	fresh := func(t *testing.T) storetest.Cluster {
		s := NewAllocating()
		t.Cleanup(s.Close)
		c := cluster(s)
		c.Open = func(*testing.T) subnet.Store { return s.OpenNode("unknown") }
		c.Nodes = &storetest.Nodes{
			Open:     func(_ *testing.T, name string) subnet.Store { return s.OpenNode(name) },
			Add:      func(_ *testing.T, name string) { s.AddNode(name) },
			Allocate: func(_ *testing.T, name string, subnets ...netip.Prefix) { s.Allocate(name, subnets...) },
			Publish:  func(_ *testing.T, name string, l subnet.Lease) { s.Publish(name, l) },
			Remove:   func(_ *testing.T, name string) { s.RemoveNode(name) },
		}
		return c
	}
	storetest.Run(t, kind, fresh)
	storetest.RunHarm(t, kind, fresh)
}

// cluster is what both kinds have in common.
func cluster(s *Server) storetest.Cluster {
	return storetest.Cluster{
		Write:  func(_ *testing.T, key, value string) { s.Write(key, value) },
		Delete: func(_ *testing.T, key string) { s.Delete(key) },
		Harm: &storetest.Harm{
			Restart: func(*testing.T) {}, // it has no connections to lose
			Wipe:    func(*testing.T) { s.Wipe() },
			Backup: func(*testing.T) func(*testing.T) {
				restore := s.Backup()
				return func(*testing.T) { restore() }
			},
			Compact: func(*testing.T) { s.Compact() },
		},
	}
}
