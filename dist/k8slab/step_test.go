package k8slab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

func TestRepeatAndUpTo(t *testing.T) {
	steps := []Step{{Name: "a"}, {Name: "b", repeatable: true}, {Name: "c", repeatable: true}, {Name: "d"}, {Name: "e", repeatable: true}}
	names := func(steps []Step) string {
		var b strings.Builder
		for _, s := range steps {
			b.WriteString(s.Name)
		}
		return b.String()
	}
	for times, want := range map[int]string{1: "abcde", 3: "abcbcbcdeee"} {
		if got := names(Repeat(steps, times)); got != want {
			t.Errorf("%d times: %s, want %s", times, got, want)
		}
	}
	if got := names(Without(steps, []string{"b", "e"})); got != "acd" {
		t.Errorf("without b and e: %s", got)
	}
	for text, want := range map[string]string{"c": "abc", "": "a", "x": ""} {
		got, err := UpTo(steps, text)
		if names(got) != want || (err != nil) != (want == "") {
			t.Errorf("%q: %s, %v, want %s", text, names(got), err, want)
		}
	}
}

// TestExplain: a loss counts as the machine's only if the machine dropped that many packets.
func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		lost int
		d    drops
		want bool
	}{
		{1, drops{}, false}, {3, drops{sockets: 3}, true}, {3, drops{machine: 1, sockets: 2}, true},
		{4, drops{machine: 1, sockets: 2}, false},
	} {
		if got := tt.d.explain(agent.Losses{Sent: 9, Lost: tt.lost}); got != tt.want {
			t.Errorf("%d lost, %+v: %v", tt.lost, tt.d, got)
		}
	}
	if (drops{}).explain(agent.Losses{}) {
		t.Error("nothing was sent")
	}
}

// TestManifest makes the changes that a user makes to the manifests of both stores.
func TestManifest(t *testing.T) {
	for _, kind := range []subnet.StoreKind{subnet.StoreKubernetes, subnet.StoreEtcd} {
		data, err := os.ReadFile(filepath.Join("../..", Manifest(kind)))
		if err != nil {
			t.Fatal(err)
		}
		change, want := withConfig, "  net-conf.json: |\n    x\n---\n"
		if kind == subnet.StoreEtcd {
			change = func(manifest, to string) (string, error) { return withEndpoints(manifest, []string{to}) }
			want = "  SELVAGED_ETCD_ENDPOINTS: \"x\"\n"
		}
		got, err := change(string(data), "x")
		if err != nil || strings.Count(got, want) != 1 {
			t.Errorf("%s: %v, %d times %q", kind, err, strings.Count(got, want), want)
		}
		if _, err := change("", "x"); err == nil {
			t.Errorf("%s: an empty manifest is no error", kind)
		}
		fast, err := withFastPath(string(data))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := withFastPath(fast); err == nil {
			t.Errorf("%s: the fast path can be switched on twice", kind)
		}
	}
	if kind, err := ParseStore("x"); err == nil {
		t.Errorf("store %q", kind)
	}
}

// TestBound binds selvage's manifest to a label, as a migration does.
func TestBound(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("../..", Manifest(subnet.StoreKubernetes)))
	if err != nil {
		t.Fatal(err)
	}
	const want = "nodeSelector:\n        kubernetes.io/os: linux\n        network: selvage\n"
	if got, err := withSelector(string(data)); err != nil || strings.Count(got, want) != 1 {
		t.Errorf("%v, want once %q", err, want)
	}
	if _, err := withSelector(""); err == nil {
		t.Error("an empty manifest is no error")
	}
}

// TestFlannelImages finds the images in a manifest such as flannel's.
func TestFlannelImages(t *testing.T) {
	const plugin, daemon = "        image: a/flannel-cni-plugin:v1\n", "        image: a/flannel:v2\n"
	gotDaemon, gotPlugin, err := flannelImages(plugin + daemon + daemon)
	if err != nil || gotDaemon != "a/flannel:v2" || gotPlugin != "a/flannel-cni-plugin:v1" {
		t.Errorf("%q, %q, %v", gotDaemon, gotPlugin, err)
	}
	for _, bad := range []string{"", plugin, daemon, plugin + daemon + "        image: b/flannel:v2\n"} {
		if gotDaemon, gotPlugin, err := flannelImages(bad); err == nil {
			t.Errorf("%q: %q, %q", bad, gotDaemon, gotPlugin)
		}
	}
}

func TestParseSoftnet(t *testing.T) {
	const text = "086ba103 000945ae 0000000a 00000000\n0849d0d2 00000002 00000013 00000000\n"
	if got, err := parseSoftnet(text); err != nil || got != 0x945ae+2 {
		t.Errorf("%d, %v, want %d", got, err, 0x945ae+2)
	}
	for _, bad := range []string{"086ba103\n", "086ba103 what\n"} {
		if got, err := parseSoftnet(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

// TestSetAddrs has Kubernetes give a pod addresses, which have to be one of each family, in order.
func TestSetAddrs(t *testing.T) {
	four, six := []subnet.Family{subnet.IPv4}, []subnet.Family{subnet.IPv6}
	dual := []subnet.Family{subnet.IPv4, subnet.IPv6}
	for _, tt := range []struct {
		families []subnet.Family
		addrs    string
		ok       bool
	}{
		{four, "10.5.1.2", true}, {six, "fd00:5::2", true}, {dual, "10.5.1.2 fd00:5::2", true},
		{dual, "fd00:5::2 10.5.1.2", false}, {dual, "10.5.1.2", false}, {four, "10.5.1.2 fd00:5::2", false}, {six, "10.5.1.2", false},
		{four, "", false}, {four, "x", false},
	} {
		var p Pod
		err := p.setAddrs(tt.families, strings.Fields(tt.addrs))
		if (err == nil) != tt.ok {
			t.Errorf("%v of %v: %v", tt.addrs, tt.families, err)
		}
		if got := joined(tt.families, func(f subnet.Family) string { return p.Addrs[f].String() }); tt.ok && got != strings.ReplaceAll(tt.addrs, " ", ",") {
			t.Errorf("%v of %v: %s", tt.addrs, tt.families, got)
		}
	}
}

// TestWithFastPath: packets have to be fast twice, while each node has streams.
func TestWithFastPath(t *testing.T) {
	for _, kind := range []subnet.StoreKind{subnet.StoreKubernetes, subnet.StoreEtcd} {
		var fast []string
		steps := WithFastPath(Steps(kind))
		for i, s := range steps {
			if strings.HasPrefix(s.Name, "packets") {
				fast = append(fast, steps[i-1].Name+" / "+steps[i+1].Name)
			}
		}
		if len(fast) != 2 || !strings.HasPrefix(fast[0], nameStreams+" / ") ||
			!strings.HasSuffix(fast[1], nameOtherRange) && !strings.HasSuffix(fast[1], nameLeaves) {
			t.Errorf("%s: %q", kind, fast)
		}
	}
}
