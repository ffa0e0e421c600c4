package cniplugin

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// TestRenderGolden renders network.json with subnet.env and wants delegate.json, byte for byte, in every directory of
// testdata/render. The files are written by hand.
func TestRenderGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/render/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			n, err := parseNetConf(read(t, filepath.Join(dir, "network.json")))
			if err != nil {
				t.Fatal(err)
			}
			f, err := subnetfile.Read(filepath.Join(dir, "subnet.env"))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSuffix(string(read(t, filepath.Join(dir, "delegate.json"))), "\n")
			for range 10 { // the order of a map's keys differs from run to run
				got, err := render(n, f)
				if err != nil {
					t.Fatal(err)
				}
				if string(got.config) != want {
					t.Fatalf("got:\n%s\nwant:\n%s", got.config, want)
				}
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRenderLeavesItsInputAlone(t *testing.T) {
	n, err := parseNetConf([]byte(`{"name":"cbr0","delegate":{"mtu":1400},"ipam":{"routes":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(n, testFile()); err != nil {
		t.Fatal(err)
	}
	if len(n.Delegate) != 1 || len(n.IPAM) != 1 || string(n.IPAM["routes"]) != "[]" {
		t.Errorf("now delegate is %s and ipam %s", n.Delegate, n.IPAM)
	}
}

func testFile() subnetfile.File {
	return subnetfile.File{
		Networks: [2][]netip.Prefix{subnet.IPv4: {netip.MustParsePrefix("10.5.0.0/16")}},
		Subnets:  [2]netip.Prefix{subnet.IPv4: netip.MustParsePrefix("10.5.29.1/24")},
		MTU:      1450,
	}
}

func TestRenderErrors(t *testing.T) {
	for _, test := range []struct{ conf, want string }{
		{`{"name":"n","delegate":{"name":"x"}}`, `delegate holds "name", want it one level up, beside "delegate"`},
		{`{"name":"n","delegate":{"ipam":{}}}`, `delegate holds "ipam", want it one level up, beside "delegate"`},
		{`{"name":"n","delegate":{"type":7}}`, `delegate: type is 7, want a string such as "bridge"`},
		{`{"name":"n","delegate":{"type":null}}`, `delegate: type is "", want the name of a plugin such as "bridge"`},
		{`{"name":"n","delegate":{"type":"../bridge"}}`, `delegate: type is "../bridge", want the name of a plugin`},
		{`{"name":"n","delegate":{"type":".."}}`, `delegate: type is "..", want the name of a plugin`},
		{`{"name":"n","delegate":{"promiscMode":"on"}}`, `delegate: promiscMode is "on", want true or false`},
		{`{"name":"n","ipam":{"type":["host-local"]}}`, `ipam: type is ["host-local"], want a string such as "host-local"`},
		{`{"name":"n","ipam":{"routes":"0.0.0.0/0"}}`, `ipam: routes is "0.0.0.0/0", want an array such as [{"dst":"0.0.0.0/0"}]`},
	} {
		n, err := parseNetConf([]byte(test.conf))
		if err != nil {
			t.Fatalf("%s: %v", test.conf, err)
		}
		if _, err = render(n, testFile()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s:\n got %v\nwant %s", test.conf, err, test.want)
		}
	}
}

func TestParseNetConf(t *testing.T) {
	n, err := parseNetConf([]byte(`{"name":"cbr0"}`))
	if err != nil {
		t.Fatal(err)
	}
	if n.SubnetFile != "/run/flannel/subnet.env" || n.DataDir != "/var/lib/cni/flannel" {
		t.Errorf("defaults are %q and %q", n.SubnetFile, n.DataDir)
	}
	n, err = parseNetConf([]byte(`{"name":"cbr0","subnetFile":"/a","dataDir":"/b"}`))
	if err != nil || n.SubnetFile != "/a" || n.DataDir != "/b" {
		t.Errorf("got %q, %q and %v", n.SubnetFile, n.DataDir, err)
	}
	for text, want := range map[string]string{
		`{"name":`:                        "not a JSON object: unexpected end of JSON input",
		`[]`:                              "not a JSON object",
		`{"name":"n","delegate":"x"}`:     "delegate is a JSON string, want an object",
		`{"name":"n","ipam":[]}`:          "ipam is a JSON array, want an object",
		`{"name":"n","subnetFile":7}`:     "subnetFile is a JSON number, want a string",
		`{"name":"n","dataDir":true}`:     "dataDir is a JSON bool, want a string",
		`{"name":"n","cniVersion":1.0}`:   "cniVersion is a JSON number, want a string",
		`{"name":{"a":1},"delegate":{ }}`: "name is a JSON object, want a string",
	} {
		if _, err := parseNetConf([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestRefresh(t *testing.T) {
	const kept = `{"cniVersion":"0.3.1","mtu":1e400,"name":"cbr0","prevResult":{"old":1},"type":"bridge"}`
	for conf, want := range map[string]string{
		`{"name":"cbr0"}`:                                             `{"cniVersion":"0.3.1","mtu":1e400,"name":"cbr0","type":"bridge"}`,
		`{"name":"cbr0","cniVersion":"1.0.0"}`:                        `{"cniVersion":"0.3.1","mtu":1e400,"name":"cbr0","type":"bridge"}`,
		`{"name":"cbr0","cniVersion":"1.0.0","prevResult":{"new":2}}`: `{"cniVersion":"1.0.0","mtu":1e400,"name":"cbr0","prevResult":{"new":2},"type":"bridge"}`,
		`{"name":"cbr0","prevResult":{"new":2}}`:                      `{"cniVersion":"0.3.1","mtu":1e400,"name":"cbr0","prevResult":{"new":2},"type":"bridge"}`,
	} {
		n, err := parseNetConf([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := refresh(decodeStored([]byte(kept)), n); err != nil || string(got.config) != want || got.plugin != "bridge" {
			t.Errorf("%s:\n got %s, %v\nwant %s", conf, got.config, err, want)
		}
	}
}
