package subnet

import (
	"net/netip"
	"testing"
)

// TestSecondBackend: a lease with two backends is written and read, and looks to the nodes of each of them as one of
// theirs.
func TestSecondBackend(t *testing.T) {
	lease := func(backend, data4, data6 string) (l Lease) {
		l.BackendType = backend
		l.Endpoints[IPv4] = Endpoint{Subnet: netip.MustParsePrefix("10.5.29.0/24"), PublicIP: netip.MustParseAddr("192.0.2.7"), Data: data4}
		if data6 != "" {
			l.Endpoints[IPv6] = Endpoint{Subnet: netip.MustParsePrefix("fd00:5:0:1d::/64"), PublicIP: netip.MustParseAddr("2001:db8::7"), Data: data6}
		}
		return l
	}
	for _, tt := range []struct{ first, second Lease }{
		{lease("vxlan", `{"VNI":1}`, ""), lease("wireguard", `{"Port":51820}`, "")},
		{lease("wireguard", `{"Port":51820}`, `{"Port":51821}`), lease("vxlan", `{"VNI":1}`, `{"VNI":2}`)},
	} {
		for _, sends := range []bool{true, false} {
			both := tt.first.Add(tt.second, sends)
			value, err := both.Value()
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseLease(both.Key(), value)
			if err != nil || got != both {
				t.Fatalf("%s is read as %+v, %v", value, got, err)
			}
			for _, want := range []Lease{tt.first, tt.second} {
				as, ok := got.As(want.BackendType)
				first := want.BackendType == tt.first.BackendType
				for _, f := range Families() {
					if !first && as.Endpoints[f] != want.Endpoints[f] {
						t.Errorf("as %s: %+v, want %+v", want.BackendType, as, want)
					}
				}
				if !ok || as.BackendType != want.BackendType || got.Sends(want.BackendType) != (first || sends) {
					t.Errorf("as %s: %+v, %t, sends: %t", want.BackendType, as, ok, got.Sends(want.BackendType))
				}
			}
			if _, ok := got.As("host-gw"); ok || got.Sends("host-gw") {
				t.Error("the lease is taken for one of host-gw")
			}
		}
	}
	alone := lease("vxlan", `{"VNI":1}`, "")
	if as, ok := alone.As("wireguard"); ok || as != alone || alone.Sends("wireguard") {
		t.Errorf("a lease with one backend is taken for one of another: %+v", as)
	}
	for _, data := range []string{`{"VNI":1,"Also":5}`, `{"Also":null}`, `{"Also":{"BackendData":{}}}`, `{"Also":`, `{"x":"\"Also\":"}`} {
		if _, ok := lease("vxlan", data, "").As("wireguard"); ok {
			t.Errorf("%s is taken for one of wireguard", data)
		}
	}
	half := lease("vxlan", `{"VNI":1}`, `{"VNI":2}`).Add(lease("wireguard", `{"Port":51820}`, ""), true)
	if _, ok := half.As("wireguard"); ok {
		t.Error("a lease of two subnets is taken for one of wireguard, which carries one of them")
	}
}
