package subnet

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnknownKeys(t *testing.T) {
	keys := func(backend string) ([]string, bool) {
		return []string{"VNI", "Port", "DirectRouting"}, backend == "vxlan"
	}
	for _, tt := range []struct{ config, want string }{
		{`{"Network":"10.5.0.0/16","SubnetLength":24}`, `"SubnetLength", did you mean "SubnetLen"?`},
		{`{"network":"10.5.0.0/16","SUBNETLEN":24,"backend":{"type":"VXLAN","vni":1,"directrouting":true}}`, ``},
		{`{"Networks":"10.5.0.0/16"}`, `"Networks", did you mean "Network"?`},
		{`{"IPv6Netwrk":"x","Enable_IPv6":true}`, `"Enable_IPv6", did you mean "EnableIPv6"?; "IPv6Netwrk", did you mean "IPv6Network"?`},
		{`{"Comment":"ours"}`, `"Comment"`},
		{`{"$schema":"network-config.schema.json","Network":"10.5.0.0/16","$Schemas":1}`, `"$Schemas", did you mean "$schema"?`},
		{`{"Backend":{"Type":"vxlan","VNID":1,"Prot":4789,"Colour":"red"}}`,
			`"Backend.Colour"; "Backend.Prot", did you mean "Backend.Port"?; "Backend.VNID", did you mean "Backend.VNI"?`},
		{`{"Backend":{"vni":1}}`, ``}, // of the default backend
		{`{"Backend":{"Type":"pigeon","wings":2}}`, ``},
		{`{"Backend":"vxlan"}`, ``},
		{`[]`, ``},
		{`{`, ``},
		{`{"` + strings.Repeat("N", 500) + `":1}`, `"` + strings.Repeat("N", 64) + `..." (500 bytes)`},
		{`{"a\n\u001b[31m":1}`, `"a\n\x1b[31m"`},
	} {
		var got []string
		for _, k := range UnknownKeys([]byte(tt.config), keys) {
			got = append(got, k.String())
		}
		if text := strings.Join(got, "; "); text != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.config, text, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"status", "peers", "explain", "doctor", "release"}
	for word, want := range map[string]string{
		"statsu": "status", "STATUS": "status", "stat": "status", "peer": "peers", "explian": "explain", "dcotor": "doctor",
		"x": "", "": "", "network": "", "releases": "release",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	for _, x := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}} {
		if got := distance(x.a, x.b); got != x.want {
			t.Errorf("%s: %d, want %d", fmt.Sprint(x.a, x.b), got, x.want)
		}
	}
}
