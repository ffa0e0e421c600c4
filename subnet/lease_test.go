package subnet

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goldenLeases are leases by the name of the file in testdata/lease that holds their value, byte for byte as flannel
// writes it (those named ours: as we do), with their keys.
func goldenLeases() map[string]struct {
	key   string
	lease Lease
} {
	const id = "4be4e2b8-3e0c-4a8f-a9d5-8bb4d9d2f0a1"
	four := Endpoint{Subnet: pfx("10.5.29.0/24"), PublicIP: ip("172.31.0.2"),
		Data: `{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}`}
	six := Endpoint{Subnet: pfx("fd00:5:0:1d::/64"), PublicIP: ip("fd00:31::2"),
		Data: `{"VNI":1,"VtepMAC":"ae:96:5d:2c:1f:0b"}`}
	bare := four
	bare.Data = ""
	return map[string]struct {
		key   string
		lease Lease
	}{
		"vxlan":      {"10.5.29.0-24", Lease{Endpoints: [2]Endpoint{IPv4: four}, BackendType: "vxlan"}},
		"vxlan-dual": {"10.5.29.0-24&fd00:5:0:1d::-64", Lease{Endpoints: [2]Endpoint{four, six}, BackendType: "vxlan"}},
		"host-gw":    {"10.5.29.0-24", Lease{Endpoints: [2]Endpoint{IPv4: bare}, BackendType: "host-gw"}},
		"ours": {"10.5.29.0-24", Lease{Endpoints: [2]Endpoint{IPv4: four}, BackendType: "vxlan",
			InstanceID: id, NodeName: "node-1"}},
		"ours-ipv6": {"fd00:5:0:1d::-64", Lease{Endpoints: [2]Endpoint{IPv6: six}, BackendType: "vxlan",
			InstanceID: id, NodeName: "node-3"}},
		"ours-mesh": {"10.5.29.0-24", Lease{Endpoints: [2]Endpoint{IPv4: four}, BackendType: "vxlan",
			InstanceID: id, NodeName: "node-1", MeshKey: "KG5wUC3C0qRVdUpAMlIOxSRbNnZZn6IWdqGsmuFqZtg="}},
	}
}

func TestLeaseGolden(t *testing.T) {
	for name, want := range goldenLeases() {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "lease", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseLease(want.key, data)
			if err != nil {
				t.Fatal(err)
			}
			if got != want.lease {
				t.Errorf("parsed:\n  got  %+v\n  want %+v", got, want.lease)
			}
			if key := want.lease.Key(); key != want.key {
				t.Errorf("key: got %s, want %s", key, want.key)
			}
			value, err := want.lease.Value()
			if err != nil {
				t.Fatal(err)
			}
			if string(value) != string(data) {
				t.Errorf("value:\n  got  %s\n  want %s", value, data)
			}
		})
	}
}

// TestParseLeaseTolerant takes values that flannel, its older versions and others may write.
func TestParseLeaseTolerant(t *testing.T) {
	four := func(data string) Lease {
		l := Lease{BackendType: "vxlan"}
		l.Endpoints[IPv4] = Endpoint{Subnet: pfx("10.5.29.0/24"), PublicIP: ip("172.31.0.2"), Data: data}
		return l
	}
	for name, tt := range map[string]struct {
		value string
		want  Lease
	}{
		"no PublicIPv6": {`{"PublicIP":"172.31.0.2","BackendType":"vxlan"}`, four("")},
		"data is null":  {`{"PublicIP":"172.31.0.2","BackendType":"vxlan","BackendData":null}`, four("")},
		"unknown fields": {`{"Zone":{"a":[1]},"PublicIP":"172.31.0.2","BackendType":"vxlan","BackendData":{"a":1}}`,
			four(`{"a":1}`)},
		"any case": {`{"publicip":"172.31.0.2","BACKENDTYPE":"vxlan"}`, four("")},
		"white space": {"\n{ \"PublicIP\": \"172.31.0.2\",\t\"BackendType\": \"vxlan\"," +
			"\r\n\"BackendData\": { \"a\" : \"x y\" } }\n",
			four(`{"a":"x y"}`)},
		"the last counts": {`{"PublicIP":"10.0.0.1","PublicIP":"172.31.0.2","BackendType":"vxlan"}`, four("")},
		"the other family's": {`{"PublicIP":"172.31.0.2","PublicIPv6":"fd00:31::2","BackendType":"vxlan","BackendV6Data":1}`,
			four("")},
		"the other family's nonsense": {`{"PublicIP":"172.31.0.2","PublicIPv6":"?","BackendType":"vxlan"}`, four("")},
		"not to be escaped":           {`{"PublicIP":"172.31.0.2","BackendType":"vxlan","BackendData":"<&>"}`, four(`"<&>"`)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLease("10.5.29.0-24", []byte(tt.value))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseLeaseErrors(t *testing.T) {
	const four, dual = "10.5.29.0-24", "10.5.29.0-24&fd00:5:0:1d::-64"
	for _, tt := range []struct{ key, value, want string }{
		{four, ``, `value: line 1, column 1: not JSON: unexpected end of JSON input`},
		{four, `{"PublicIP":"172.31.0.2"`, `value: line 1, column 24: not JSON: unexpected end of JSON input`},
		{four, `{}{}`, `value: line 1, column 3: not JSON: invalid character '{' after top-level value`},
		{four, `[]`, `value: is a JSON array, want an object`},
		{four, `{"PublicIP":1}`, `value: PublicIP is 1, want a string`},
		{four, `{"PublicIP":"172.31.0.2","NodeName":[]}`, `value: NodeName is a JSON array, want a string`},
		{four, `null`, `value: no PublicIP`},
		{four, `{"PublicIP":""}`, `value: no PublicIP`},
		{four, `{"PublicIP":"172.31.0.2/24"}`, `value: PublicIP is "172.31.0.2/24", want an IPv4 address`},
		{four, `{"PublicIP":"fd00:31::2"}`, `value: PublicIP is "fd00:31::2", want an IPv4 address`},
		{four, `{"PublicIP":"::ffff:172.31.0.2"}`, `value: PublicIP is "::ffff:172.31.0.2", want an IPv4 address`},
		{dual, `{"PublicIP":"172.31.0.2","PublicIPv6":null}`, `value: no PublicIPv6`},
		{dual, `{"PublicIP":"172.31.0.2","PublicIPv6":"172.31.0.2"}`,
			`value: PublicIPv6 is "172.31.0.2", want an IPv6 address`},
		{dual, `{"PublicIP":"172.31.0.2","PublicIPv6":"::ffff:172.31.0.2"}`,
			`value: PublicIPv6 is "::ffff:172.31.0.2", want an IPv6 address`},
		{dual, `{"PublicIP":"172.31.0.2","PublicIPv6":"fe80::1%eth0"}`,
			`value: PublicIPv6 is "fe80::1%eth0", want an IPv6 address`},
		{four, `{"PublicIP":"172.31.0.2","BackendData":"` + strings.Repeat("x", 5000) + `"}`,
			`value of 5042 bytes, want at most 4096`},
	} {
		_, err := ParseLease(tt.key, []byte(tt.value))
		wantError(t, err, "key "+tt.key+": "+tt.want)
	}
	_, err := ParseLease("config", []byte(`{}`))
	wantError(t, err, `key "config": "config" is not ADDRESS-LENGTH, such as 10.5.29.0-24`)
}

func TestValueErrors(t *testing.T) {
	l := goldenLeases()["vxlan"].lease
	l.Endpoints[IPv4].Data = "{"
	_, err := l.Value()
	wantError(t, err, "lease 10.5.29.0-24: "+
		"json: error calling MarshalJSON for type json.RawMessage: unexpected end of JSON input")
	l = goldenLeases()["vxlan"].lease
	l.NodeName = strings.Repeat("x", 254)
	_, err = l.Value()
	wantError(t, err, "lease 10.5.29.0-24: NodeName of 254 bytes, want at most 253")
}

func TestParseKey(t *testing.T) {
	for key, want := range map[string][2]netip.Prefix{
		"10.5.29.0-24":                     {IPv4: pfx("10.5.29.0/24")},
		"fd00:5:0:1d::-64":                 {IPv6: pfx("fd00:5:0:1d::/64")},
		"10.5.29.0-24&fd00:5:0:1d::-64":    {pfx("10.5.29.0/24"), pfx("fd00:5:0:1d::/64")},
		"10.5.29.4-30&fd00:5:0:1d::4-126":  {pfx("10.5.29.4/30"), pfx("fd00:5:0:1d::4/126")},
		"0.0.0.0-0&::-0":                   {pfx("0.0.0.0/0"), pfx("::/0")},
		"255.255.255.255-32&fd00::1:2-128": {pfx("255.255.255.255/32"), pfx("fd00::1:2/128")},
	} {
		got, err := parseKey(key)
		if err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", key, got, err, want)
		}
		if back := FormatKey(got[:]...); back != key {
			t.Errorf("%s comes back as %s", key, back)
		}
	}
}

func TestParseKeyErrors(t *testing.T) {
	for key, want := range map[string]string{
		"":                              `"" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"config":                        `"config" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.29.0":                     `"10.5.29.0" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.29.0/24":                  `"10.5.29.0/24" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"subnets/10.5.29.0-24":          `"subnets/10.5.29.0-24" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		" 10.5.29.0-24":                 `" 10.5.29.0-24" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.029.0-24":                 `"10.5.029.0-24" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.29-24":                    `"10.5.29-24" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.29.0-24&":                 `"" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"&fd00::-64":                    `"" is not ADDRESS-LENGTH, such as 10.5.29.0-24`,
		"10.5.29.0-24 ":                 `"10.5.29.0-24 " is not an IP prefix`,
		"10.5.29.0-":                    `"10.5.29.0-" is not an IP prefix`,
		"10.5.29.0--1":                  `"10.5.29.0--1" is not an IP prefix`,
		"10.5.29.0-33":                  `"10.5.29.0-33" is not an IP prefix`,
		"10.5.29.0-24-24":               `"10.5.29.0-24-24" is not an IP prefix`,
		"fd00::-129":                    `"fd00::-129" is not an IP prefix`,
		"fe80::%eth0-64":                `"fe80::%eth0-64" is not an IP prefix`,
		"::ffff:10.5.29.0-120":          `"::ffff:10.5.29.0-120" is not an IP prefix`,
		"10.5.29.1-24":                  `10.5.29.1/24 has host bits set, want 10.5.29.0/24`,
		"fd00:5:0:1d::1-64":             `fd00:5:0:1d::1/64 has host bits set, want fd00:5:0:1d::/64`,
		"10.5.29.0-024":                 `not in canonical form, want "10.5.29.0-24"`,
		"10.5.29.0-+24":                 `not in canonical form, want "10.5.29.0-24"`,
		"FD00:5:0:1D::-64":              `not in canonical form, want "fd00:5:0:1d::-64"`,
		"fd00:0005:0:1d::-64":           `not in canonical form, want "fd00:5:0:1d::-64"`,
		"fd00:5:0:1d:0:0:0:0-64":        `not in canonical form, want "fd00:5:0:1d::-64"`,
		"fd00:5:0:1d::-64&10.5.29.0-24": `want the IPv4 subnet first, then the IPv6 one`,
		"10.5.29.0-24&10.5.30.0-24":     `want the IPv4 subnet first, then the IPv6 one`,
		"fd00::-64&fd00:1::-64":         `want the IPv4 subnet first, then the IPv6 one`,
		"10.5.29.0-24&fd00::-64&a":      `has 3 parts, want one or two`,
	} {
		_, err := parseKey(key)
		wantError(t, err, fmt.Sprintf("key %q: %s", key, want))
	}
	_, err := parseKey(strings.Repeat("1", 129))
	wantError(t, err, "key of 129 bytes: want ADDRESS-LENGTH, at most one IPv4 and one IPv6, separated by &")
}
