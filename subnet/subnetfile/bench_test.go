package subnetfile

import (
	"net/netip"
	"path/filepath"
	"testing"
)

// BenchmarkFile renders a subnet file, and reads one, without the disk.
func BenchmarkFile(b *testing.B) {
	f := File{MTU: 1450, IPMasq: true}
	f.Networks = [2][]netip.Prefix{prefixes("10.5.0.0/16"), prefixes("fd00:5::/48")}
	f.Subnets = [2]netip.Prefix(prefixes("10.5.29.1/24", "fd00:5:0:1d::1/64"))
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if len(f.Marshal()) == 0 {
				b.Fatal("nothing")
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "subnet.env")
		b.ReportAllocs()
		for b.Loop() {
			if err := Write(path, f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "subnet.env")
		if err := Write(path, f); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Read(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}
