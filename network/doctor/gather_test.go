package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

func TestParseCNI(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     CNIList
		wrong    bool
	}{
		{name: "a list", in: `{"name":"cbr0","plugins":[{"type":"selvage","subnetFile":"/s","delegate":{"mtu":1300}},{"type":"portmap"}]}`,
			want: CNIList{Ours: true, SubnetFile: "/s", Bridge: "cni0", MTU: 1300, Types: []string{"selvage", "bridge", "host-local", "portmap"}}},
		{name: "flannel, by itself, with other delegates", in: `{"type":"flannel","delegate":{"type":"macvlan","ipam":{"type":"dhcp"}}}`,
			want: CNIList{Ours: true, Types: []string{"flannel", "macvlan", "dhcp"}}},
		{name: "IPAM beside the delegate", in: `{"type":"selvage","ipam":{"type":"static"},"delegate":{"bridge":"br1"}}`,
			want: CNIList{Ours: true, Bridge: "br1", Types: []string{"selvage", "bridge", "static"}}},
		{name: "a foreign plugin", in: `{"type":"bridge","ipam":{"type":"host-local"}}`, want: CNIList{Types: []string{"bridge", "host-local"}}},
		{name: "no type", in: `{"plugins":[{}]}`, wrong: true},
		{name: "no JSON", in: `{`, wrong: true},
	} {
		got := parseCNI("f", []byte(tt.in))
		if (got.Err != nil) != tt.wrong {
			t.Errorf("%s: %v", tt.name, got.Err)
		}
		if !tt.wrong && (got.Ours != tt.want.Ours || got.SubnetFile != tt.want.SubnetFile || got.Bridge != tt.want.Bridge || got.MTU != tt.want.MTU || !slices.Equal(got.Types, tt.want.Types)) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestGatherCNI(t *testing.T) {
	conf, bin := t.TempDir(), t.TempDir()
	for path, mode := range map[string]fs.FileMode{
		filepath.Join(conf, "20-selvage.conf"): 0o644, filepath.Join(conf, "readme.txt"): 0o644,
		filepath.Join(bin, "selvage"): 0o755, filepath.Join(bin, "bridge"): 0o644,
	} {
		if err := os.WriteFile(path, []byte(`{"type":"selvage"}`), mode); err != nil {
			t.Fatal(err)
		}
	}
	c := gatherCNI(conf, []string{filepath.Join(bin, "nowhere"), bin})
	if len(c.Lists) != 1 || c.Lists[0].File != filepath.Join(conf, "20-selvage.conf") || c.DirErr != nil {
		t.Errorf("%+v", c)
	}
	if c.Plugins["selvage"] != nil || !errors.Is(c.Plugins["bridge"], errNotExecutable) || !errors.Is(c.Plugins["host-local"], fs.ErrNotExist) {
		t.Errorf("plugins %v", c.Plugins)
	}
	if c := gatherCNI(filepath.Join(conf, "nowhere"), nil); !errors.Is(c.DirErr, fs.ErrNotExist) {
		t.Errorf("%+v", c)
	}
	if c := gatherCNI("", nil); c.DirErr != nil || c.Lists != nil {
		t.Errorf("%+v", c)
	}
}

func TestCounters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snmp")
	text := "Ip: Forwarding\nIp: 1\nUdp: InDatagrams InCsumErrors\nUdp: 5 7\nUdp6InCsumErrors 3\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := columnCounter(file, "Udp:", "InCsumErrors"); n != 7 {
		t.Errorf("%d, want 7", n)
	}
	if n := columnCounter(file, "Udp:", "Other") + columnCounter(file, "Tcp:", "x") + columnCounter(file+"x", "Udp:", "InCsumErrors"); n != 0 {
		t.Errorf("%d for missing counters", n)
	}
	if n := lineCounter(file, "Udp6InCsumErrors"); n != 3 {
		t.Errorf("%d, want 3", n)
	}
}

func TestTargets(t *testing.T) {
	f := healthy()
	f.Peers = nil
	for i := range 30 {
		f.Peers = append(f.Peers, peer("node"+string(rune('a'+i)), i+2))
	}
	f.Peers[3].State = status.Quarantined
	f.Peers[4].Paths = []status.PeerPath{{Device: "eth0", Direct: true}}
	for _, tt := range []struct {
		o    Options
		want int
	}{
		{Options{Sample: 20}, 20}, {Options{}, 29}, {Options{Peer: "nodeb"}, 1}, {Options{Peer: "10.5.3.0-24"}, 1}, {Options{Peer: "10.5.3.0/24"}, 1}, {Options{Peer: "192.0.2.3"}, 1},
	} {
		all, err := f.targets(tt.o)
		if err != nil || len(all) != tt.want {
			t.Errorf("%+v: %d targets, %v, want %d", tt.o, len(all), err, tt.want)
		}
		for _, x := range all {
			direct := x.Key == f.Peers[4].Key
			if x.Tunnel == direct || x.Overhead == 0 != direct || x.Link != map[bool]string{true: "eth0", false: "flannel.1"}[direct] || x.NoDevice {
				t.Errorf("%+v", x)
			}
		}
	}
	if _, err := f.targets(Options{Peer: "missing"}); !errors.Is(err, ErrNoPeer) {
		t.Errorf("%v, want ErrNoPeer", err)
	}
	f.Status.Backend = &status.Backend{Type: "host-gw", PodMTU: 1500}
	if all, err := f.targets(Options{Peer: "nodeb"}); err != nil || len(all) != 1 || !all[0].NoDevice || all[0].Overlay != addr("10.5.3.1") {
		t.Errorf("host-gw: %+v, %v", all, err)
	}
}
