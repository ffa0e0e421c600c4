package subnet

import (
	"os"
	"path/filepath"
	"testing"
)

func FuzzParseKey(f *testing.F) {
	for _, golden := range goldenLeases() {
		f.Add(golden.key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		subnets, err := ParseKey(key)
		if err != nil {
			return
		}
		if back := FormatKey(subnets[:]...); back != key {
			t.Errorf("%q comes back as %q", key, back)
		}
		for i, p := range subnets {
			if p.IsValid() && (p != p.Masked() || FamilyOf(p.Addr()) != Family(i) || p.Addr().Is4In6()) {
				t.Errorf("%q: %s of %s", key, Family(i), p)
			}
		}
	})
}

// FuzzParseLease checks that what was read can be written, and is then read as the same lease under the same key.
func FuzzParseLease(f *testing.F) {
	for name, golden := range goldenLeases() {
		data, err := os.ReadFile(filepath.Join("testdata", "lease", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(golden.key, data)
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		l, err := ParseLease(key, data)
		if err != nil {
			return
		}
		if l.Key() != key {
			t.Fatalf("%q comes back as %q", key, l.Key())
		}
		value, err := l.Value()
		if err != nil {
			// The fields that a value always has, and the escapes that Go writes, can make it longer than what was read.
			if len(data) < maxValue/8 {
				t.Fatalf("cannot be written: %v", err)
			}
			return
		}
		if again, err := ParseLease(key, value); err != nil || again != l {
			t.Errorf("%s\nis read as  %+v\nand then as %+v (%v)", value, l, again, err)
		}
	})
}
