package subnet

import "testing"

// dualLease is one as selvage writes it, with all there is.
func dualLease() Lease {
	l := Lease{BackendType: "vxlan", InstanceID: "4be4e2b8-3e0c-4a8f-a9d5-000000000001", NodeName: "node-1"}
	l.Endpoints[IPv4] = Endpoint{Subnet: pfx("10.5.29.0/24"), PublicIP: ip("192.0.2.7"), Data: `{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}`}
	l.Endpoints[IPv6] = Endpoint{Subnet: pfx("fd00:5:0:1d::/64"), PublicIP: ip("2001:db8::7"), Data: `{"VNI":1,"VtepMAC":"72:30:36:d0:8b:69"}`}
	return l
}

// BenchmarkParseLease is what each lease of a snapshot costs before anybody judges it.
func BenchmarkParseLease(b *testing.B) {
	key := dualLease().Key()
	value, err := dualLease().Value()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseLease(key, value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseKey(b *testing.B) {
	key := dualLease().Key()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseKey(key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkValue is what each lease costs when the leases are kept on disk.
func BenchmarkValue(b *testing.B) {
	l := dualLease()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Value(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseConfig(b *testing.B) {
	text := []byte(`{"Network":"10.5.0.0/16","SubnetLen":24,"SubnetMin":"10.5.1.0","SubnetMax":"10.5.199.0",` +
		`"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan","VNI":1,"Port":8472,"DirectRouting":true}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseConfig(text); err != nil {
			b.Fatal(err)
		}
	}
}
