package network

import (
	"net/netip"
	"testing"
)

func TestParseMAC(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want MAC
		ok   bool
	}{
		{"72:30:36:d0:8b:68", MAC{0x72, 0x30, 0x36, 0xd0, 0x8b, 0x68}, true},
		{"72:30:36:D0:8B:68", MAC{0x72, 0x30, 0x36, 0xd0, 0x8b, 0x68}, true},
		{"00:00:00:00:00:00", MAC{}, true},
		{"", MAC{}, false},
		{"72:30:36:d0:8b", MAC{}, false},
		{"72:30:36:d0:8b:6", MAC{}, false},
		{"72:30:36:d0:8b:68:", MAC{}, false},
		{"72-30-36-d0-8b-68", MAC{}, false},
		{"72:30:36:d0:8b:6g", MAC{}, false},
		{"g2:30:36:d0:8b:68", MAC{}, false},
		{"72:30:36:d0:8b 68", MAC{}, false},
		{"7230:36:d0:8b:068", MAC{}, false},
		{"02:00:5e:10:00:00:00:01", MAC{}, false}, // EUI-64, which net.ParseMAC takes
	} {
		got, err := ParseMAC(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("ParseMAC(%q) = %v, %v; want %v, ok %t", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("72:30:36:d0:8b:68")
	f.Add("72:30:36:D0:8b:6g")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			if m != (MAC{}) {
				t.Errorf("ParseMAC(%q) = %v with an error", s, m)
			}
			return
		}
		if again, err := ParseMAC(m.String()); err != nil || again != m {
			t.Errorf("ParseMAC(%q) = %v, read again as %v, %v", s, m, again, err)
		}
	})
}

func TestMACIsUnicast(t *testing.T) {
	for s, want := range map[string]bool{
		"72:30:36:d0:8b:68": true,
		"00:00:00:00:00:01": true,
		"00:00:00:00:00:00": false,
		"ff:ff:ff:ff:ff:ff": false,
		"01:00:5e:00:00:01": false,
	} {
		if got := mac(s).IsUnicast(); got != want {
			t.Errorf("IsUnicast of %s = %t, want %t", s, got, want)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{mac("72:30:36:d0:8b:68").String(), "72:30:36:d0:8b:68"},
		{RouteKey{Prefix: prefix("10.5.29.0/24")}.String(), "10.5.29.0/24"},
		{RouteKey{Prefix: prefix("10.5.29.0/24"), Metric: 7}.String(), "10.5.29.0/24 metric 7"},
		{RouteKey{Prefix: prefix("fd00:5::/64"), Metric: 1024}.String(), "fd00:5::/64"},
		{RouteKey{Prefix: prefix("fd00:5::/64"), Metric: 0}.String(), "fd00:5::/64 metric 0"},
		{AddressKey{Link: "flannel.1", Prefix: prefix("10.5.29.0/32")}.String(), "10.5.29.0/32 dev flannel.1"},
		{FDBKey{Link: "flannel.1", MAC: mac("72:30:36:d0:8b:68")}.String(), "72:30:36:d0:8b:68 dev flannel.1"},
		{NeighbourKey{Link: "flannel.1", IP: netip.MustParseAddr("10.5.29.0")}.String(), "10.5.29.0 dev flannel.1"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestSameDevice(t *testing.T) {
	l := Link{Kind: "vxlan", VNI: 1, Port: 8472, MTU: 1450, Alias: Alias, Up: true}
	same := l
	same.MTU, same.MAC, same.Alias, same.Up, same.Learning, same.AddrGen = 1400, MAC{2}, "", false, true, true
	same.Local = netip.MustParseAddr("192.0.2.1")
	if !l.SameDevice(same) {
		t.Error("differs in what can be changed on a live device")
	}
	for _, change := range []func(*Link){
		func(l *Link) { l.Kind = "dummy" },
		func(l *Link) { l.VNI++ },
		func(l *Link) { l.Port++ },
		func(l *Link) { l.GBP = true },
	} {
		other := l
		change(&other)
		if l.SameDevice(other) {
			t.Errorf("%+v and %+v count as the same device", l, other)
		}
	}
}

func mac(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
