package subnet

import "testing"

func TestLastAddr(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.5.1.0/24":    "10.5.1.255",
		"10.5.1.7/20":    "10.5.15.255", // host bits set
		"0.0.0.0/0":      "255.255.255.255",
		"10.5.1.7/32":    "10.5.1.7",
		"fd00:5::/63":    "fd00:5:0:1:ffff:ffff:ffff:ffff",
		"fd00:5::1/128":  "fd00:5::1",
		"::/0":           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"2001:db8::/127": "2001:db8::1",
	} {
		if got := LastAddr(pfx(prefix)); got != ip(want) {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}
