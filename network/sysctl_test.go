package network

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestAcceptRABeforeForwarding: the other way round the kernel drops the default route.
func TestAcceptRABeforeForwarding(t *testing.T) {
	tables := NewTables()
	k := newFakeKernel(tables)
	r := &Reconciler{Tables: tables}
	const ra, all, v4 = "net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/all/forwarding", "net/ipv4/ip_forward"
	tables.Replace(Owner{Name: "node"}, State{}, State{Sysctls: []Item[string, Sysctl]{
		{Key: all, Value: "1"}, {Key: ra, Value: "2"}, {Key: v4, Value: "1"},
	}})
	tables.Sysctls.Observe(all, "0")
	tables.Sysctls.Observe(ra, "1")
	tables.Sysctls.Observe(v4, "1")
	result := r.Pass(time.Now())
	if want := []string{ra, all}; !slices.Equal(k.sysctls, want) {
		t.Errorf("set %q, want %q", k.sysctls, want)
	}
	if want := []string{ra + "=2", all + "=1"}; !slices.Equal(result.Sysctls, want) {
		t.Errorf("reported %q, want %q", result.Sysctls, want)
	}
	if n := tables.Pending(); n != 0 {
		t.Errorf("%d pending, want 0", n)
	}
	// Nobody wants it any more: it stays, since others may have come to need it.
	tables.Replace(Owner{Name: "node"}, State{Sysctls: []Item[string, Sysctl]{{Key: v4, Value: "1"}}}, State{})
	if result := r.Pass(time.Now()); result.Set+result.Removed != 0 {
		t.Errorf("pass without the wish: %+v, want nothing done", result)
	}
}

// TestIPv6BeforeAddresses: a device without IPv6 takes neither addresses nor routes, so it gets IPv6 first.
func TestIPv6BeforeAddresses(t *testing.T) {
	r, k := newReconciler()
	const disabled, forwarding = "net/ipv6/conf/flannel.1/disable_ipv6", "net/ipv6/conf/flannel.1/forwarding"
	r.Tables.Replace(Owner{Name: "node", Age: -1}, State{}, State{
		Links:     []Item[string, Link]{{Key: "flannel.1", Value: Link{Kind: KindVXLAN, Settings: VXLAN{VNI: 1}, Up: true, Alias: Alias}}},
		Addresses: []Item[AddressKey, Address]{{Key: AddressKey{Link: "flannel.1", Prefix: prefix("fd00:5:0:1::/128")}}},
		Sysctls:   []Item[string, Sysctl]{{Key: forwarding, Value: "1"}, {Key: disabled, Value: "0"}},
	})
	r.Tables.Sysctls.Observe(disabled, "1")
	r.Tables.Sysctls.Observe(forwarding, "0")
	k.refuse = func(kind, _ string) error {
		if kind == "address" && !slices.Contains(k.sysctls, disabled) {
			return errors.New("permission denied")
		}
		return nil
	}
	if got := r.Pass(time.Unix(0, 0)); len(got.Failures) != 0 || !slices.Equal(got.Sysctls, []string{disabled + "=0", forwarding + "=1"}) {
		t.Errorf("%+v, want both settings and no failure", got)
	}
}
