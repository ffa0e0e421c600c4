package vxlan

import (
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// BenchmarkPeer measures what a lease costs: state, when its peer is brought into the tables, and unique, when the
// lease is accepted.
func BenchmarkPeer(b *testing.B) {
	for _, c := range []struct{ name, config, key, value string }{
		{"IPv4", `{"Network":"10.5.0.0/16"}`, ipv4Key, ipv4Value},
		{"dual", `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, dualKey, dualValue},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg, err := subnet.ParseConfig([]byte(c.config))
			if err != nil {
				b.Fatal(err)
			}
			u := underlay()
			u.Nexthops = true
			v, err := New(cfg, u)
			if err != nil {
				b.Fatal(err)
			}
			l, err := subnet.ParseLease(c.key, []byte(c.value))
			if err != nil {
				b.Fatal(err)
			}
			b.Run("state", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Peer(l); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("unique", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if unique, err := v.Check(l); err != nil || len(unique) == 0 {
						b.Fatal(unique, err)
					}
				}
			})
		})
	}
}
