package subnet

import "testing"

// TestParseConfigK3s reads net-conf.json as k3s writes it: the family that is off has a network that is none.
func TestParseConfigK3s(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want [2]string
	}{
		"ipv4": {want: [2]string{IPv4: "10.42.0.0/16"}, text: `{
	"Network": "10.42.0.0/16",
	"EnableIPv6": false,
	"EnableIPv4": true,
	"IPv6Network": "::/0",
	"Backend": {
	"Type": "vxlan"
}
}
`},
		"ipv6": {want: [2]string{IPv6: "fd42::/56"}, text: `{
	"Network": "0.0.0.0/0",
	"EnableIPv6": true,
	"EnableIPv4": false,
	"IPv6Network": "fd42::/56",
	"Backend": {
	"Type": "host-gw"
}
}
`},
	} {
		config, err := ParseConfig([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, f := range Families() {
			got := ""
			if config.Ranges[f].Network.IsValid() {
				got = config.Ranges[f].Network.String()
			}
			if got != tt.want[f] {
				t.Errorf("%s: the network of %s is %q, want %q", name, f, got, tt.want[f])
			}
		}
	}
}
