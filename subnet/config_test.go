package subnet

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// rangeOf is a Range as texts.
func rangeOf(network string, length int, first, last string) Range {
	return Range{Network: pfx(network), SubnetLen: length, Min: ip(first), Max: ip(last)}
}

func TestParseConfigGolden(t *testing.T) {
	yes, no := true, false
	want := map[string]Config{
		"smallest": {
			Ranges:  [2]Range{IPv4: rangeOf("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")},
			Backend: Backend{Type: "vxlan"},
		},
		"ipv4": {
			Ranges:   [2]Range{IPv4: rangeOf("10.5.0.0/16", 25, "10.5.10.0", "10.5.99.128")},
			NFTables: &no,
			Backend: Backend{Type: "vxlan", Options: []byte(
				`{"Type": "vxlan", "VNI": 7, "Port": 4789, "MTU": 1400, "DirectRouting": true, "GBP": false, "Learning": false}`)},
		},
		"dual": {
			Ranges: [2]Range{
				IPv4: rangeOf("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0"),
				IPv6: rangeOf("fd00:5::/56", 64, "fd00:5:0:10::", "fd00:5:0:1f::"),
			},
			NFTables: &yes,
			Backend:  Backend{Type: "host-gw", Options: []byte(`{"Type": "host-gw"}`)},
		},
		"ipv6": {
			Ranges:  [2]Range{IPv6: rangeOf("fd00:5::/56", 64, "fd00:5:0:1::", "fd00:5:0:ff::")},
			Backend: Backend{Type: "vxlan"},
		},
		// Keys in any case, the last of several counts; null, zero and empty are as good as absent; unknown fields and
		// those of a family that is off are not looked at; host bits in Network go.
		"odd": {
			Ranges:  [2]Range{IPv4: rangeOf("10.6.0.0/16", 24, "10.6.1.0", "10.6.255.0")},
			Backend: Backend{Type: "vxlan", Options: []byte(`{"TYPE": "vxlan", "Unknown": 1}`)},
		},
	}
	for name, want := range want {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "config", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseConfig(data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestParseConfigRange goes along the limits of flannel's formats.
func TestParseConfigRange(t *testing.T) {
	tests := []struct {
		fields string
		f      Family
		want   Range
	}{
		{`"Network":"10.0.0.0/8"`, IPv4, rangeOf("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0")},
		{`"Network":"10.5.0.0/22"`, IPv4, rangeOf("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0")},
		{`"Network":"10.5.0.0/23"`, IPv4, rangeOf("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128")},
		{`"Network":"10.5.0.0/28"`, IPv4, rangeOf("10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12")},
		{`"Network":"10.5.0.0/16","SubnetLen":18`, IPv4, rangeOf("10.5.0.0/16", 18, "10.5.64.0", "10.5.192.0")},
		{`"Network":"10.5.0.0/16","SubnetLen":30`, IPv4, rangeOf("10.5.0.0/16", 30, "10.5.0.4", "10.5.255.252")},
		{`"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0"`, IPv4, rangeOf("10.5.0.0/16", 24, "10.5.0.0", "10.5.255.0")},
		{`"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.9.0"`, IPv4,
			rangeOf("10.5.0.0/16", 24, "10.5.9.0", "10.5.9.0")},
		{`"Network":"128.0.0.0/1"`, IPv4, rangeOf("128.0.0.0/1", 24, "128.0.1.0", "255.255.255.0")},
		{`"IPv6Network":"fd00::/8"`, IPv6, rangeOf("fd00::/8", 64, "fd00:0:0:1::", "fdff:ffff:ffff:ffff::")},
		{`"IPv6Network":"fd00:5::/62"`, IPv6, rangeOf("fd00:5::/62", 64, "fd00:5:0:1::", "fd00:5:0:3::")},
		{`"IPv6Network":"fd00:5::/63"`, IPv6, rangeOf("fd00:5::/63", 65, "fd00:5:0:0:8000::", "fd00:5:0:1:8000::")},
		{`"IPv6Network":"fd00:5::/124"`, IPv6, rangeOf("fd00:5::/124", 126, "fd00:5::4", "fd00:5::c")},
		{`"IPv6Network":"fd00::/20","IPv6SubnetLen":126`, IPv6,
			rangeOf("fd00::/20", 126, "fd00::4", "fd00:fff:ffff:ffff:ffff:ffff:ffff:fffc")},
		{`"IPv6Network":"fd00:5::/56","IPv6SubnetLen":0,"IPv6SubnetMin":"::","IPv6SubnetMax":"::"`, IPv6,
			rangeOf("fd00:5::/56", 64, "fd00:5:0:1::", "fd00:5:0:ff::")},
	}
	for _, tt := range tests {
		text := "{" + tt.fields + "}"
		if tt.f == IPv6 {
			text = `{"EnableIPv4":false,"EnableIPv6":true,` + tt.fields + "}"
		}
		c, err := ParseConfig([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Ranges[tt.f]; got != tt.want {
			t.Errorf("%s:\n  got  %+v\n  want %+v", text, got, tt.want)
		}
	}
}

func TestParseConfigBackend(t *testing.T) {
	for text, want := range map[string]Backend{
		`null`:                  {Type: "vxlan"},
		`{}`:                    {Type: "vxlan", Options: []byte(`{}`)},
		`{"Type":""}`:           {Type: "vxlan", Options: []byte(`{"Type":""}`)},
		`{"Type":null,"VNI":7}`: {Type: "vxlan", Options: []byte(`{"Type":null,"VNI":7}`)},
		`{"type":"host-gw"}`:    {Type: "host-gw", Options: []byte(`{"type":"host-gw"}`)},
	} {
		c := mustConfig(t, `{"Network":"10.5.0.0/16","Backend":`+text+`}`)
		if !reflect.DeepEqual(c.Backend, want) {
			t.Errorf("%s: got %+v, want %+v", text, c.Backend, want)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	const four, six = `"Network":"10.5.0.0/16"`, `"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"`
	badNetwork := func(text, why string) [2]string {
		return [2]string{`{"Network":"` + text + `"}`, `Network is "` + text + `", want ` + why}
	}
	badNetwork6 := func(text, why string) [2]string {
		return [2]string{`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"` + text + `"}`,
			`IPv6Network is "` + text + `", want ` + why}
	}
	const anIPv4, anIPv6 = `an IPv4 network such as "10.5.0.0/16"`, `an IPv6 network such as "fd00:5::/56"`
	tests := [][2]string{
		// the whole
		{``, `is empty, want at least {"Network": "10.5.0.0/16"}`},
		{" \n", `is empty, want at least {"Network": "10.5.0.0/16"}`},
		{strings.Repeat(" ", 65537), `is 65537 bytes long, want at most 65536`},
		{`"10.5.0.0/16"`, `is a JSON string, want an object`},
		{`[{}]`, `is a JSON array, want an object`},
		{`{"Network":"10.5.0.0/16",}`,
			`line 1, column 26: not JSON: invalid character '}' looking for beginning of object key string`},
		{"{\n\t\"Network\": \"10.5.0.0/16\"\n\t\"SubnetLen\": 24\n}",
			`line 3, column 2: not JSON: invalid character '"' after object key:value pair`},
		{"{\n\"Network\": \"10.5\n.0.0/16\"}", `line 2, column 17: not JSON: invalid character '\n' in string literal`},
		{`{"Network":"10.5.0.0/16"`, `line 1, column 24: not JSON: unexpected end of JSON input`},
		{`{"Network":"10.5.0.0/16"} x`, `line 1, column 27: not JSON: invalid character 'x' after top-level value`},
		{`Network: 10.5.0.0/16`, `line 1, column 1: not JSON: invalid character 'N' looking for beginning of value`},
		// types
		{`{"EnableIPv4":"true",` + four + `}`, `EnableIPv4 is "true", want true or false`},
		{`{"EnableIPv6":1,` + four + `}`, `EnableIPv6 is 1, want true or false`},
		{`{"Network":["10.5.0.0/16"]}`, `Network is a JSON array, want a string`},
		{`{"network":true}`, `Network is true, want a string`},
		{`{"SubnetLen":"24",` + four + `}`, `SubnetLen is "24", want a whole number`},
		{`{"SubnetLen":24.5,` + four + `}`, `SubnetLen is 24.5, want a whole number`},
		{`{"SubnetLen":99999999999999999999,` + four + `}`, `SubnetLen is 99999999999999999999, want a whole number`},
		{`{"SubnetMin":{},` + four + `}`, `SubnetMin is a JSON object, want a string`},
		{`{"SubnetMax":"10.5.9.0","IPv6SubnetMax":7,` + four + `}`, `IPv6SubnetMax is 7, want a string`},
		{`{"Backend":"vxlan",` + four + `}`, `Backend: is a JSON string, want an object`},
		{`{"Backend":{"Type":5},` + four + `}`, `Backend: Type is 5, want a string`},
		{`{"Backend":7,` + four + `}`, `Backend: is a JSON number, want an object`},
		// what is long or cannot be printed
		{`{"Backend":{"Type":"` + strings.Repeat("x", 65) + `"},` + four + `}`, `Backend: Type of 65 bytes, want at most 64`},
		{`{"Backend":{"Type":"vxlan\n"},` + four + `}`, `Backend: Type is "vxlan\n", want printable characters only`},
		{`{"SubnetLen":` + strings.Repeat("9", 1000) + `,` + four + `}`, `SubnetLen is a JSON number, want a whole number`},
		{`{"Network":"` + strings.Repeat("\\u001b", 100) + `"}`,
			`Network is "` + strings.Repeat(`\x1b`, 16) + `..." (100 bytes), want ` + anIPv4},
		{`{"SubnetMin":"` + strings.Repeat("x", 1000) + `",` + four + `}`,
			`SubnetMin is "` + strings.Repeat("x", 64) + `..." (1000 bytes), want an IPv4 address in 10.5.0.0/16 such as "10.5.1.0"`},
		{`{"EnableIPv4":"` + "\u202e" + `",` + four + `}`, `EnableIPv4 is a JSON string, want true or false`},
		{strings.Repeat("[", 60000), `line 1, column 10001: not JSON: invalid character '[' exceeded max depth`},
		{`{"Encryption":"Required",` + four + `}`, `Encryption is "Required", want "required", or no such key`},
		{`{"Encryption":true,` + four + `}`, `Encryption is true, want a string`},
		// families
		{`{"EnableIPv4":false,` + four + `}`,
			`EnableIPv4 and EnableIPv6 are both false, want at least one of them true`},
		{`null`, `Network is missing, want the IPv4 network of the cluster, such as "10.5.0.0/16" (or EnableIPv4 false)`},
		{`{"Network":null}`,
			`Network is missing, want the IPv4 network of the cluster, such as "10.5.0.0/16" (or EnableIPv4 false)`},
		{`{"EnableIPv6":true,` + four + `}`,
			`IPv6Network is missing, want the IPv6 network of the cluster, such as "fd00:5::/56" (or EnableIPv6 false)`},
		// networks
		badNetwork("", anIPv4), badNetwork("10.5.0.0", anIPv4), badNetwork("10.5.0.0/33", anIPv4),
		badNetwork("10.05.0.0/16", anIPv4), badNetwork("fd00:5::/56", anIPv4), badNetwork("::ffff:10.5.0.0/112", anIPv4),
		badNetwork("10.5.0.0/29", "a length of 28 or less: there must be room for subnets"),
		badNetwork("0.0.0.0/0", `a unicast network such as "10.5.0.0/16"`),
		badNetwork("127.0.0.0/8", `a unicast network such as "10.5.0.0/16"`),
		badNetwork("169.254.0.0/16", `a unicast network such as "10.5.0.0/16"`),
		badNetwork("224.0.0.0/4", `a unicast network such as "10.5.0.0/16"`),
		badNetwork6("10.5.0.0/16", anIPv6), badNetwork6("::ffff:10.5.0.0/112", anIPv6), badNetwork6("fe80::%eth0/64", anIPv6),
		badNetwork6("fd00:5::/125", "a length of 124 or less: there must be room for subnets"),
		badNetwork6("::/0", `a unicast network such as "fd00:5::/56"`),
		badNetwork6("fe80::/10", `a unicast network such as "fd00:5::/56"`),
		badNetwork6("ff00::/8", `a unicast network such as "fd00:5::/56"`),
		// lengths
		{`{"SubnetLen":17,` + four + `}`, `SubnetLen is 17, want 18 to 30 with Network 10.5.0.0/16`},
		{`{"SubnetLen":31,` + four + `}`, `SubnetLen is 31, want 18 to 30 with Network 10.5.0.0/16`},
		{`{"SubnetLen":-1,` + four + `}`, `SubnetLen is -1, want 18 to 30 with Network 10.5.0.0/16`},
		{`{"IPv6SubnetLen":57,` + six + `}`, `IPv6SubnetLen is 57, want 58 to 126 with IPv6Network fd00:5::/56`},
		{`{"IPv6SubnetLen":127,` + six + `}`, `IPv6SubnetLen is 127, want 58 to 126 with IPv6Network fd00:5::/56`},
		// bounds
		{`{"SubnetMin":"10.5.9.0/24",` + four + `}`,
			`SubnetMin is "10.5.9.0/24", want an IPv4 address in 10.5.0.0/16 such as "10.5.1.0"`},
		{`{"SubnetMax":"fd00::",` + four + `}`,
			`SubnetMax is "fd00::", want an IPv4 address in 10.5.0.0/16 such as "10.5.255.0"`},
		{`{"SubnetMin":"10.6.0.0",` + four + `}`, `SubnetMin is "10.6.0.0", want an address inside Network 10.5.0.0/16`},
		{`{"SubnetMax":"10.5.99.1",` + four + `}`,
			`SubnetMax is "10.5.99.1", want the first address of a /24 subnet, such as "10.5.99.0"`},
		{`{"SubnetMin":"10.5.99.0","SubnetMax":"10.5.10.0",` + four + `}`,
			`SubnetMin 10.5.99.0 is above SubnetMax 10.5.10.0, want it below or equal`},
		{`{"IPv6SubnetMin":"fd00:5:0:1::%eth0",` + six + `}`,
			`IPv6SubnetMin is "fd00:5:0:1::%eth0", want an IPv6 address in fd00:5::/56 such as "fd00:5:0:1::"`},
		{`{"IPv6SubnetMax":"fd00:6::",` + six + `}`,
			`IPv6SubnetMax is "fd00:6::", want an address inside IPv6Network fd00:5::/56`},
		{`{"IPv6SubnetMax":"fd00:5::1",` + six + `}`,
			`IPv6SubnetMax is "fd00:5::1", want the first address of a /64 subnet, such as "fd00:5::"`},
		{`{"IPv6SubnetMin":"fd00:5:0:9::","IPv6SubnetMax":"fd00:5:0:1::",` + six + `}`,
			`IPv6SubnetMin fd00:5:0:9:: is above IPv6SubnetMax fd00:5:0:1::, want it below or equal`},
	}
	for _, tt := range tests {
		t.Run(tt[1], func(t *testing.T) {
			c, err := ParseConfig([]byte(tt[0]))
			wantError(t, err, "network config: "+tt[1])
			if !reflect.DeepEqual(c, Config{}) {
				t.Errorf("config beside the error: %+v", c)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/config/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "network config: ") {
				t.Errorf("error %q", err)
			}
			checkReason(t, err)
			return
		}
		if !c.Ranges[IPv4].Enabled() && !c.Ranges[IPv6].Enabled() || c.Backend.Type == "" {
			t.Errorf("incomplete: %+v", c)
		}
		if len(c.Backend.Type) > maxBackendType || len(c.Backend.Options) > maxConfig {
			t.Errorf("too long: %+v", c.Backend)
		}
		for _, family := range Families() {
			if r := c.Ranges[family]; r.Enabled() {
				checkRange(t, family, r)
			} else if r != (Range{}) {
				t.Errorf("%s: a range that is off: %+v", family, r)
			}
		}
	})
}

// checkRange fails if r is not as a config's range must be.
func checkRange(t *testing.T, f Family, r Range) {
	t.Helper()
	lim := limitsOf(f)
	if r.SubnetLen < r.Network.Bits()+minSplit || r.SubnetLen > lim.maxLen || r.Network.Bits() > lim.maxNetwork {
		t.Errorf("%s: lengths: %+v", f, r)
	}
	if r.Network != r.Network.Masked() || r.Min.Compare(r.Max) > 0 {
		t.Errorf("%s: order: %+v", f, r)
	}
	count := r.Count()
	if count == 0 || count > 1<<63 {
		t.Errorf("%s: %d subnets: %+v", f, count, r)
	}
	for _, p := range []struct {
		name  string
		index uint64
	}{{"first", 0}, {"last", count - 1}} {
		sub := r.At(p.index)
		if err := r.CheckPeer(sub); err != nil || !r.Fits(sub) || FamilyOf(sub.Addr()) != f {
			t.Errorf("%s: %s subnet %s (%v): %+v", f, p.name, sub, err, r)
		}
	}
	if first, last := r.At(0).Addr(), r.At(count-1).Addr(); first != r.Min || count < 1<<63 && last != r.Max {
		t.Errorf("%s: from %s to %s: %+v", f, first, last, r)
	}
}

// TestParseAllocatedConfig: where the store allocates, what says how to allocate is not looked at, and any subnet inside
// of Network is good.
func TestParseAllocatedConfig(t *testing.T) {
	for _, text := range []string{
		`{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}`,
		`{"Network":"10.42.0.0/16","SubnetLen":99,"SubnetMin":"x","SubnetMax":"192.0.2.1","Backend":{"Type":"vxlan"}}`,
		// As k3s writes it without IPv6, and without IPv4.
		`{"Network":"10.42.0.0/16","EnableIPv6":false,"EnableIPv4":true,"IPv6Network":"::/0","Backend":{"Type":"vxlan"}}`,
	} {
		c, err := ParseAllocatedConfig([]byte(text))
		if want := (Range{Network: pfx("10.42.0.0/16")}); err != nil || c.Ranges != [2]Range{IPv4: want} {
			t.Fatalf("%s: %+v, %v", text, c, err)
		}
		r := c.Ranges[IPv4]
		for _, good := range []string{"10.42.0.0/24", "10.42.255.0/24", "10.42.7.0/26", "10.42.0.0/16", "10.42.128.0/17"} {
			if err := r.CheckPeer(pfx(good)); err != nil {
				t.Errorf("%s: %v", good, err)
			}
		}
		for _, bad := range []string{"10.43.0.0/24", "10.0.0.0/8", "10.42.0.4/31", "fd00::/64"} {
			if r.CheckPeer(pfx(bad)) == nil {
				t.Errorf("%s is accepted", bad)
			}
		}
		if r.Leasable(ip("10.42.1.1")) || r.Count() != 0 || r.Fits(pfx("10.42.1.0/24")) {
			t.Error("a subnet is known before it is allocated")
		}
	}
	v6 := `{"Network":"0.0.0.0/0","EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:db8:42::/56"}`
	c, err := ParseAllocatedConfig([]byte(v6))
	if want := (Range{Network: pfx("2001:db8:42::/56")}); err != nil || c.Ranges != [2]Range{IPv6: want} {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{`{}`, `{"Network":"0.0.0.0/0"}`, `{"Network":"10.42.0.0/30"}`} {
		if _, err := ParseAllocatedConfig([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
