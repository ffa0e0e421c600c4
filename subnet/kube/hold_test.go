package kube

import (
	"context"
	"net/netip"
	"testing"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// TestReleaseAfterABackup: the lease that Hold has written is released also if the store was restored from a backup
// that has it, and counts its versions from before the claim.
func TestReleaseAfterABackup(t *testing.T) {
	f := standIn(t, true)
	s := f.open(t, "one")
	w := storetest.Watch(t, f.open(t, "two"), nil)
	w.Synced(1)
	f.addNode(t, "one", "10.244.1.0/24")
	other := wanted("one")
	other.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("192.0.2.9")
	if _, err := s.Claim(t.Context(), nil, other); err != nil {
		t.Fatal(err)
	}
	w.There("one")
	saved := f.standIn.Backup()
	held, err := s.Claim(t.Context(), nil, wanted("one"))
	if err != nil {
		t.Fatal(err)
	}
	ip := func(want netip.Addr) func(storetest.State) string {
		return func(s storetest.State) string {
			if got := s.Leases["one"].Endpoints[subnet.IPv4].PublicIP; got != want {
				return "the public IP " + want.String()
			}
			return ""
		}
	}
	// What the backup has is what Hold writes: only what follows the second claim is Hold's.
	w.Until(ip(held.Lease.Endpoints[subnet.IPv4].PublicIP))
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan subnet.Lease, 1), make(chan error, 1)
	go func() { ended <- s.Hold(ctx, held, changed) }()
	other.Endpoints[subnet.IPv4].Subnet = prefix("10.244.1.0/24")
	changed <- other
	w.Until(ip(other.Endpoints[subnet.IPv4].PublicIP))
	f.standIn.Stop()
	f.standIn.Restore(saved)
	f.standIn.Requests()
	f.start(t)
	w.Synced(2)
	// Hold reads the Node again, with the lease that it wrote.
	eventually(t, "a watch of the Node", func() bool {
		for _, r := range f.standIn.Requests() {
			if r.Verb == "WATCH" && r.Query.Get("fieldSelector") != "" {
				return true
			}
		}
		return false
	})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), held); err != nil {
		t.Error(err)
	}
	w.Gone("one")
}
