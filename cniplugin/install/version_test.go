package install

import "testing"

func TestOlderThan(t *testing.T) {
	ordered := []string{"v0.0.0-20250102150405-aaaaaaaaaaaa", "v0.0.0-20260102150405-0123456789ab", "v0.9.0", "v0.10.0", "v1.0.0-alpha", "v1.0.0-alpha.1",
		"v1.0.0-alpha.beta", "v1.0.0-beta", "v1.0.0-beta.2", "v1.0.0-beta.11", "v1.0.0-rc.1", "v1.0.0", "v1.0.1", "v2.0.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := olderThan(a, b); got != (i < j) {
				t.Errorf("%s older than %s: %t", a, b, got)
			}
		}
	}
	for _, unknown := range []string{"", "(devel)", "1.0.0", "v1", "v1.0", "v1.0.0.0", "v1.x.0", "v1.-1.0"} {
		if olderThan(unknown, "v1.0.0") || olderThan("v1.0.0", unknown) {
			t.Errorf("%q is ordered", unknown)
		}
	}
	if olderThan("v1.0.0", "v1.0.0+dirty") || olderThan("v1.0.0+dirty", "v1.0.0") {
		t.Error("how it was built makes a difference")
	}
}
