package lab

import (
	"slices"
	"strings"
	"testing"
)

// TestServedWireGuards: who is to serve WireGuard devices, and the error if there is no program for it.
func TestServedWireGuards(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct {
		name    string
		o       Options
		kernel  bool
		devices []string
		says    string
	}{
		{"a kernel with WireGuard", Options{Bin: empty, WireGuard: []string{"flannel-wg"}}, true, nil, ""},
		{"a program", Options{Bin: binDir, WireGuard: []string{"flannel-wg"}}, false, []string{"flannel-wg"}, ""},
		{"neither", Options{Bin: empty, WireGuard: []string{"flannel-wg"}}, false, nil, "make bin/wireguard"},
		{"no device", Options{Bin: empty}, false, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			devices, err := tt.o.servedWireGuards(func() (bool, error) { return tt.kernel, nil })
			if !slices.Equal(devices, tt.devices) || (err == nil) != (tt.says == "") ||
				err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q, %v, want %q and an error with %q", devices, err, tt.devices, tt.says)
			}
		})
	}
}

// TestWireGuardCombinations: every mode is tried in every overlay that it makes sense in, with either store, on one
// segment and on two.
func TestWireGuardCombinations(t *testing.T) {
	tried := map[string]int{}
	for _, c := range Combinations() {
		if mode, is := strings.CutPrefix(c.Backend.Name, "wireguard "); is {
			tried[FamiliesName(c.Families)+" "+mode]++
			if c.podMTU() != c.UplinkMTU()-80 {
				t.Errorf("%s: pods with an MTU of %d", c, c.podMTU())
			}
		}
	}
	const separate, other = 3*2*2 + 2*2, 2 * 2
	want := map[string]int{
		"ipv4 separate": separate, "ipv4 auto": other, "ipv4 ipv4": other,
		"ipv6 separate": separate, "ipv6 auto": other, "ipv6 ipv6": other,
		"dual separate": separate, "dual auto": other, "dual ipv4": other, "dual ipv6": other,
	}
	for name, n := range want {
		if tried[name] != n {
			t.Errorf("%s: %d combinations, want %d", name, tried[name], n)
		}
	}
	if len(tried) != len(want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
}
