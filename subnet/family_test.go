package subnet

import "testing"

func TestFamily(t *testing.T) {
	for text, want := range map[string]Family{
		"10.5.29.0": IPv4, "0.0.0.0": IPv4, "fd00::1": IPv6, "::": IPv6, "::ffff:10.5.29.0": IPv6, "fe80::1%eth0": IPv6,
	} {
		if got := FamilyOf(ip(text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for i, want := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		f := Families()[i]
		if int(f) != i || f.String() != want.name || f.Bits() != want.bits {
			t.Errorf("family %d: %d, %s, %d bits", i, f, f, f.Bits())
		}
	}
}
