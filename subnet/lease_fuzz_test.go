package subnet

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func FuzzParseKey(f *testing.F) {
	for _, golden := range goldenLeases() {
		f.Add(golden.key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		subnets, err := parseKey(key)
		if err != nil {
			checkReason(t, err)
			if subnets != [2]netip.Prefix{} {
				t.Errorf("%q: subnets beside the error: %v", key, subnets)
			}
			if short := ShortName(key); len(short) > maxName || len(key) <= maxName && short != key {
				t.Errorf("%q is kept under %q", key, short)
			}
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

// FuzzParseLease checks that what was read is bounded and can be written, and is then read as the same lease under the
// same key.
func FuzzParseLease(f *testing.F) {
	for name, golden := range goldenLeases() {
		data, err := os.ReadFile(filepath.Join("testdata", "lease", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(golden.key, data)
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		if usual, ok := parseUsual(data); ok {
			if any, err := parseAny(data); err != nil || usual != any {
				t.Errorf("%s is read as %+v, and by encoding/json as %+v, %v", data, usual, any, err)
			}
		}
		l, err := ParseLease(key, data)
		if err != nil {
			checkReason(t, err)
			if rest := (Lease{BackendType: l.BackendType, InstanceID: l.InstanceID, NodeName: l.NodeName, MeshKey: l.MeshKey}); rest != (Lease{}) ||
				!l.stray() && l.Key() != key || l.Endpoints[IPv4].PublicIP.IsValid() || l.Endpoints[IPv6].PublicIP.IsValid() {
				t.Errorf("beside the error: %+v", l)
			}
			return
		}
		if l.Key() != key {
			t.Fatalf("%q comes back as %q", key, l.Key())
		}
		if err := l.checkTexts(); err != nil {
			t.Error(err)
		}
		value, err := l.Value()
		if err != nil || len(value) > maxValue {
			t.Fatalf("cannot be written, with %d bytes: %v", len(value), err)
		}
		if any, err := l.anyValue(); err != nil || !bytes.Equal(value, any) {
			t.Errorf("%+v is written as %s, and by encoding/json as %s, %v", l, value, any, err)
		}
		if again, err := ParseLease(key, value); err != nil || again != l {
			t.Errorf("%s\nis read as  %+v\nand then as %+v (%v)", value, l, again, err)
		}
	})
}

// TestUsualIsUsual: what selvage and flannel write is in the form that is read and written without encoding/json.
func TestUsualIsUsual(t *testing.T) {
	for name, golden := range goldenLeases() {
		data, err := os.ReadFile(filepath.Join("testdata", "lease", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := parseUsual(data); !ok {
			t.Errorf("%s is not taken for the usual form: %s", name, data)
		}
		if _, ok := golden.lease.appendUsual(nil); !ok {
			t.Errorf("%s is not written in the usual form: %+v", name, golden.lease)
		}
	}
}
