package vxlan

import (
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

func config(t *testing.T, text string) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func underlay() backend.Underlay {
	local := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return backend.Underlay{
		Link: "eth0", MTU: 1500, Local: local, PublicIP: local,
		Keep: keeper{},
	}
}

// keeper is a [backend.Keeper] that keeps to the node's own lease.
type keeper struct{}

func (keeper) MAC(_ string, lease network.MAC) network.MAC {
	if lease != (network.MAC{}) {
		return lease
	}
	return network.MAC{0x0e, 0, 0, 0, 0, 1}
}

func (keeper) Secret(_ string, _ int, generate func() ([]byte, error)) ([]byte, error) {
	return generate()
}

func lease(t *testing.T, key, value string) subnet.Lease {
	t.Helper()
	l, err := subnet.ParseLease(key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const (
	ipv4Key   = "10.5.29.0-24"
	dualKey   = "10.5.29.0-24&fd00:5:0:1d::-64"
	ipv4Value = `{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}}`
	dualValue = `{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"vxlan",
		"BackendData":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"},"BackendV6Data":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:69"}}`
)

// TestState compares what a node and one peer need in the kernel with the commands in testdata/state.txt: for each case
// a line "# name", then the commands.
func TestState(t *testing.T) {
	const (
		withNexthops = "dual stack, kernel with nexthop objects"
		fastDirect   = "dual stack, IPv4 directly, with the fast path"
	)
	golden, err := os.ReadFile("testdata/state.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ name, config, key, value string }{
		{"IPv4", `{"Network":"10.5.0.0/16"}`, ipv4Key, ipv4Value},
		{withNexthops, `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, dualKey, dualValue},
		{"IPv4, all options", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":42,"Port":4789,"MTU":9000,"GBP":true,"Learning":true}}`,
			ipv4Key, strings.Replace(ipv4Value, `"VNI":1`, `"VNI":42`, 1)},
		{"dual stack", `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, dualKey, dualValue},
		{"dual stack, peer with IPv4 only", `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, ipv4Key, ipv4Value},
		{"IPv4, peer of both", `{"Network":"10.5.0.0/16"}`, dualKey, dualValue},
		{"IPv4, lease without VNI", `{"Network":"10.5.0.0/16"}`, ipv4Key, strings.Replace(ipv4Value, `"VNI":1,`, ``, 1)},
		{fastDirect, `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"DirectRouting":true}}`,
			dualKey, dualValue},
	}
	var got strings.Builder
	for _, c := range cases {
		cfg := config(t, c.config)
		u := underlay()
		u.Nexthops = c.name == withNexthops
		if c.name == fastDirect {
			u.FastPath, u.OnLink[subnet.IPv4] = true, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if strings.Contains(c.config, `"MTU":9000`) {
			u.MTU = 9000
		}
		b, err := New(cfg, u)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		own := [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}
		if cfg.Ranges[subnet.IPv6].Enabled() {
			own[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1::/64")
		}
		peer, err := b.Peer(lease(t, c.key, c.value))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got.WriteString("# " + c.name + "\n")
		for _, line := range append(b.Device(own).Commands(), peer.Commands()...) {
			got.WriteString(line + "\n")
		}
	}
	if got.String() != string(golden) {
		t.Errorf("got:\n%s\nwant:\n%s", &got, golden)
	}
}

func TestAdvertise(t *testing.T) {
	b, err := New(config(t, `{"Network":"10.5.0.0/16"}`), underlay())
	if err != nil {
		t.Fatal(err)
	}
	e := b.Advertise()
	if want := `{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}`; e[subnet.IPv4].Data != want || e[subnet.IPv4].PublicIP != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("IPv4: %+v, want data %s", e[subnet.IPv4], want)
	}
	if e[subnet.IPv6] != (subnet.Endpoint{}) {
		t.Errorf("IPv6: %+v, want none", e[subnet.IPv6])
	}
}

func TestOwnLeaseKeepsItsMAC(t *testing.T) {
	u := underlay()
	own := lease(t, ipv4Key, ipv4Value)
	u.Own = &own
	b, err := New(config(t, `{"Network":"10.5.0.0/16"}`), u)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Device([2]netip.Prefix{}).Links[0].Value.MAC.String(); got != "72:30:36:d0:8b:68" {
		t.Errorf("MAC %s, want the lease's, 72:30:36:d0:8b:68", got)
	}
}

func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		config string
		want   int
	}{
		{`{"Network":"10.5.0.0/16"}`, 1450},
		{`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, 1430},
		{`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, 1430},
		{`{"Network":"10.5.0.0/16","Backend":{"MTU":1400}}`, 1350},
		{`{"Network":"10.5.0.0/16","Backend":{"MTU":9000}}`, 1450},
	} {
		b, err := New(config(t, tt.config), underlay())
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Describe().MTU; got != tt.want {
			t.Errorf("%s: MTU %d, want %d", tt.config, got, tt.want)
		}
	}
}

func TestWarning(t *testing.T) {
	for config_, want := range map[string]string{
		`{"Network":"10.5.0.0/16"}`:                        "",
		`{"Network":"10.5.0.0/16","Backend":{"MTU":1500}}`: "",
		`{"Network":"10.5.0.0/16","Backend":{"MTU":9000}}`: "Backend.MTU in the network config is 9000, more than the MTU of uplink eth0, 1500: " +
			"using the uplink's; raise the uplink's MTU or lower Backend.MTU",
	} {
		b, err := New(config(t, config_), underlay())
		if err != nil {
			t.Fatal(err)
		}
		if got := b.(backend.Warner).Warning(); got != want {
			t.Errorf("%s: %q, want %q", config_, got, want)
		}
	}
}

func TestDirect(t *testing.T) {
	for config_, want := range map[string]bool{
		`{"Network":"10.5.0.0/16"}`:                                   false,
		`{"Network":"10.5.0.0/16","Backend":{"DirectRouting":true}}`:  true,
		`{"Network":"10.5.0.0/16","Backend":{"DirectRouting":false}}`: false,
	} {
		b, err := New(config(t, config_), underlay())
		if err != nil {
			t.Fatal(err)
		}
		if got := b.(backend.Mixed).Direct(); got != want {
			t.Errorf("%s: direct %t, want %t", config_, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	b, err := New(config(t, `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"VNI":7}}`), underlay())
	if err != nil {
		t.Fatal(err)
	}
	vni := []backend.Setting{{Name: "VNI", Value: "7"}}
	want := backend.Description{MTU: 1430, Tunnels: []backend.Tunnel{
		{Device: "flannel.7", Protocol: "VXLAN", Overhead: 50, Port: 8472, Local: netip.MustParseAddr("192.0.2.1"), Settings: vni},
		{Device: "flannel-v6.7", Protocol: "VXLAN", Overhead: 70, Port: 8472, Local: netip.MustParseAddr("2001:db8::1"), Settings: vni},
	}}
	if got := b.Describe(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestUnique(t *testing.T) {
	const dual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`
	const first, second = "MAC 72:30:36:d0:8b:68 (IPv4)", "MAC 72:30:36:d0:8b:69 (IPv6)"
	for _, tt := range []struct {
		config, key, value string
		want               []string
	}{
		{dual, dualKey, dualValue, []string{first, second}},
		{dual, dualKey, strings.ReplaceAll(dualValue, "8b:69", "8b:68"), []string{first, "MAC 72:30:36:d0:8b:68 (IPv6)"}},
		{dual, ipv4Key, ipv4Value, []string{first}},
		{dual, ipv4Key, strings.Replace(ipv4Value, "72:30:36:d0:8b:68", "72:30:36:D0:8B:68", 1), []string{first}},
		{dual, ipv4Key, strings.Replace(ipv4Value, `"VNI":1,`, ``, 1), []string{first}},
		{`{"Network":"10.5.0.0/16"}`, dualKey, dualValue, []string{first}},
		// What no peer can use claims nothing.
		{dual, ipv4Key, strings.Replace(ipv4Value, `"VNI":1`, `"VNI":2`, 1), nil},
		{dual, dualKey, strings.Replace(dualValue, `"VNI":1`, `"VNI":2`, 1), nil},
		{dual, ipv4Key, strings.Replace(ipv4Value, "72:", "73:", 1), nil},
		{dual, ipv4Key, strings.Replace(ipv4Value, `{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}`, "null", 1), nil},
	} {
		b, err := New(config(t, tt.config), underlay())
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := b.Check(lease(t, tt.key, tt.value)); !slices.Equal(got, tt.want) {
			t.Errorf("%s %s:\ngot  %q\nwant %q", tt.key, tt.value, got, tt.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	noIPv6 := underlay()
	noIPv6.Local[subnet.IPv6] = netip.Addr{}
	narrow := underlay()
	narrow.MTU = 600
	for _, tt := range []struct {
		config string
		u      backend.Underlay
		want   string
	}{
		{`{"Network":"10.5.0.0/16","Backend":{"VNI":16777216}}`, underlay(), "network config: Backend.VNI is 16777216, want 0 to 16777215"},
		{`{"Network":"10.5.0.0/16","Backend":{"VNI":10000000}}`, underlay(),
			"network config: Backend.VNI is 10000000, want at most 9999999: the device would be called flannel.10000000, of 16 " +
				"characters, and the kernel allows 15"},
		{`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"VNI":10000}}`, underlay(),
			"network config: Backend.VNI is 10000, want at most 9999: the device would be called flannel-v6.10000, of 16 " +
				"characters, and the kernel allows 15"},
		{`{"Network":"10.5.0.0/16","Backend":{"VNI":-1}}`, underlay(), "network config: Backend.VNI is -1, want 0 to 16777215"},
		{`{"Network":"10.5.0.0/16","Backend":{"VNI":"1"}}`, underlay(), "network config: Backend.VNI is a JSON string, want a whole number"},
		{`{"Network":"10.5.0.0/16","Backend":{"VNI":` + strings.Repeat("9", 400) + `}}`, underlay(),
			"network config: Backend.VNI is a JSON number, want a whole number"},
		{`{"Network":"10.5.0.0/16","Backend":{"Port":65536}}`, underlay(), "network config: Backend.Port is 65536, want 0 to 65535"},
		{`{"Network":"10.5.0.0/16","Backend":{"MTU":70000}}`, underlay(), "network config: Backend.MTU is 70000, want 0 to 65535"},
		{`{"Network":"10.5.0.0/16","Backend":{"MTU":300}}`, underlay(),
			"Backend.MTU in the network config is 300, want at least 626: VXLAN takes 50 bytes over IPv4 and 576 must remain"},
		{`{"Network":"10.5.0.0/16"}`, narrow, "the MTU of uplink eth0 is 600, want at least 626: VXLAN takes 50 bytes over IPv4 and 576 must remain"},
		{`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`, noIPv6,
			"uplink eth0 has no IPv6 address to carry the IPv6 overlay; add one, or choose another uplink with --iface"},
	} {
		if _, err := New(config(t, tt.config), tt.u); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.config, err, tt.want)
		}
	}
}

func TestPeerErrors(t *testing.T) {
	b, err := New(config(t, `{"Network":"10.5.0.0/16"}`), underlay())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ data, want string }{
		{`null`, "no BackendData"},
		{`[]`, "BackendData is a JSON array, want an object"},
		{`7`, "BackendData is a JSON number, want an object"},
		{`{"VNI":"1"}`, "BackendData.VNI is a JSON string, want uint32"},
		{`{"VNI":-1}`, "BackendData.VNI is a JSON number, want uint32"},
		{`{"VNI":1.5}`, "BackendData.VNI is a JSON number, want uint32"},
		{`{"VNI":` + strings.Repeat("9", 400) + `}`, "BackendData.VNI is a JSON number, want uint32"},
		{`{"VNI":1,"VtepMAC":["72:30:36:d0:8b:68"]}`, "BackendData.VtepMAC is a JSON array, want string"},
		{`{"VNI":2,"VtepMAC":"72:30:36:d0:8b:68"}`, "BackendData: VNI is 2, want 1"},
		{`{"VNI":1}`, `BackendData: VtepMAC "" is not a MAC address such as 72:30:36:d0:8b:68`},
		{`{"VNI":1,"VtepMAC":"72:30:36:d0:8b"}`, `BackendData: VtepMAC "72:30:36:d0:8b" is not a MAC address such as 72:30:36:d0:8b:68`},
		{`{"VNI":1,"VtepMAC":"` + strings.Repeat("7", 400) + `"}`,
			"BackendData: VtepMAC of 400 bytes is not a MAC address such as 72:30:36:d0:8b:68"},
		{`{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}`, "BackendData: VtepMAC 01:00:5e:00:00:01 is not the address of one device"},
		{`{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}`, "BackendData: VtepMAC 00:00:00:00:00:00 is not the address of one device"},
		{`{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}`, "BackendData: VtepMAC ff:ff:ff:ff:ff:ff is not the address of one device"},
	} {
		l := lease(t, ipv4Key, `{"PublicIP":"192.0.2.7","BackendType":"vxlan","BackendData":`+tt.data+`}`)
		if s, err := b.Peer(l); err == nil || err.Error() != tt.want || len(s.Commands()) != 0 {
			t.Errorf("%s:\ngot  %v, %v\nwant %s", tt.data, s.Commands(), err, tt.want)
		}
		if _, err := b.Check(l); err == nil || err.Error() != tt.want {
			t.Errorf("%s: Check says %v, and Peer %s", tt.data, err, tt.want)
		}
	}
	dual := lease(t, ipv4Key, `{"PublicIP":"192.0.2.7","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}}`)
	dual.Endpoints[subnet.IPv6] = subnet.Endpoint{Subnet: netip.MustParsePrefix("fd00:5:0:1d::/64"), Data: "?"} // of a family that is off
	if _, err := b.Check(dual); err != nil {
		t.Errorf("a lease that can be used: %v", err)
	}
}

// FuzzParseUsual: what the short way takes, encoding/json reads the same way.
func FuzzParseUsual(f *testing.F) {
	for _, text := range []string{
		`{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}`, `{"VNI":4294967295,"VtepMAC":"72:30:36:D0:8B:68"}`, `{"VNI":4294967296,"VtepMAC":"72:30:36:d0:8b:68"}`,
		`{"VNI":01,"VtepMAC":"72:30:36:d0:8b:68"}`, `{"VNI":+1,"VtepMAC":"72:30:36:d0:8b:68"}`, `{"VNI":,"VtepMAC":"72:30:36:d0:8b:68"}`,
		`{"VNI":1,"VtepMAC":"72:30:36:d0:8b:6\n"}`, `{"VNI":1,"VtepMAC":"72:30:36:d0","x":"1"}`, `{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"} `,
		`{"VtepMAC":"72:30:36:d0:8b:68"}`, `{"VNI":1e0,"VtepMAC":"72:30:36:d0:8b:68"}`, `{"VNI":1,"VtepMAC":"72:30:36:d0:8b\"68"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseUsual(text)
		if !ok {
			return
		}
		var want leaseData
		if err := json.Unmarshal([]byte(text), &want); err != nil || want.VNI == nil || *want.VNI != *got.VNI || want.VtepMAC != got.VtepMAC {
			t.Errorf("%q: VNI %d, VtepMAC %q, and encoding/json says %+v, %v", text, *got.VNI, got.VtepMAC, want, err)
		}
	})
}

// TestParseUsual: the form in which leases are written is one that the short way takes.
func TestParseUsual(t *testing.T) {
	b, err := New(config(t, `{"Network":"10.5.0.0/16"}`), underlay())
	if err != nil {
		t.Fatal(err)
	}
	if data := b.Advertise()[subnet.IPv4].Data; data == "" {
		t.Fatal("no BackendData")
	} else if _, ok := parseUsual(data); !ok {
		t.Errorf("%s is not taken for the usual form", data)
	}
}
