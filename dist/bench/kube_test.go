package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// TestKube measures among few Nodes, with a real kube-apiserver: see make test-kube. TestFabricate has the rest.
func TestKube(t *testing.T) {
	if os.Getenv("SELVAGE_TEST_KUBE") == "" {
		return
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := Run(t.Context(), Options{
		Bin: bin, Only: []string{"kube"}, Rounds: 1, KubeNodes: 20, KubeAdded: 3, KubeRest: time.Second, Log: &log,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	found := map[string]*Figure{}
	for _, f := range r.Figures {
		found[f.Name] = f
	}
	for _, name := range []string{
		"KubeStart", "KubeList", "KubeStartReady", "KubeStartCPU", "KubeStartRequests", "KubeStartReceived",
		"KubeRestReceived", "KubeMemoryPeak", "KubeMemoryRest", "KubeAddedHalf", "KubeAddedMost",
	} {
		if f := found[name+"/nodes=20"]; f == nil || f.Value <= 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := found["KubeBinary"]; f == nil || f.Value <= 0 {
		t.Errorf("KubeBinary: %+v", f)
	}
}

// TestFabricate: what is written into the API are the leases that are expected in the kernel, of a real Node's size,
// and what a kubelet writes changes none.
func TestFabricate(t *testing.T) {
	const nodes = 4
	server := kubetest.New(kubetest.Options{})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	k := &kubeCluster{admin: server.Admin(), nodes: nodes}
	if err := k.fabricate(t.Context(), 0, nodes); err != nil {
		t.Fatal(err)
	}
	if _, err := k.admin.PatchNode(t.Context(), nodeName(0), "status", heartbeat(time.Now())); err != nil {
		t.Fatal(err)
	}
	if got := leasesOf(t, server.URL()); len(got) != nodes {
		t.Errorf("%d leases, want %d", len(got), nodes)
	} else {
		for i := range nodes {
			want := absent(i, ipv4(), 0)
			want.NodeName = nodeName(i)
			if got[want.NodeName] != want {
				t.Errorf("lease %+v\n want %+v", got[want.NodeName], want)
			}
		}
	}
	if err := k.remove(t.Context(), 1, nodes); err != nil {
		t.Fatal(err)
	}
	if got := leasesOf(t, server.URL()); len(got) != 1 {
		t.Errorf("%d leases after all but one were removed", len(got))
	}
	text, err := json.Marshal(nodeObject(nodeName(0), "10.128.0.0/24", "100.64.0.0"))
	if err != nil || len(text) < 9_000 || len(text) > 16_000 {
		t.Errorf("a Node has %d bytes (%v), want about 12,000", len(text), err)
	}
}

// leasesOf reads the leases in an API server, by name.
func leasesOf(t *testing.T, url string) map[string]subnet.Lease {
	t.Helper()
	s, err := kube.New(kube.Options{API: apiserver.Options{URL: url}, Node: "reader", NetConfPath: "/none"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all, whole := map[string]subnet.Lease{}, errors.New("that is all")
	err = s.Watch(ctx, func(e subnet.Event) error {
		for _, r := range e.Put {
			if r.Bad != nil {
				t.Errorf("Node %s: %v", r.Name, r.Bad)
			}
			all[r.Name] = r.Lease
		}
		if e.Type == subnet.Synced {
			return whole
		}
		return nil
	})
	if !errors.Is(err, whole) {
		t.Fatalf("read the leases: %v, %v", err, ctx.Err())
	}
	return all
}

// TestAudited counts requests in an audit log whose last line is not complete.
func TestAudited(t *testing.T) {
	line := func(user, verb string) string {
		return fmt.Sprintf(`{"kind":"Event","stage":"RequestReceived","verb":%q,"user":{"username":%q}}`+"\n",
			verb, user)
	}
	log := line("a", "get") + line("b", "list") + line("a", "watch") + line("a", "get") + `{"kind":"Ev`
	got, err := audited(strings.NewReader(log), "a")
	if err != nil || len(got) != 2 || got["get"] != 2 || got["watch"] != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := audited(strings.NewReader("x"), "a"); err == nil {
		t.Error("a malformed log is no error")
	}
}

// TestKubeReport: limits are ratios within the run, and those to flannel are left out where it was not measured.
func TestKubeReport(t *testing.T) {
	measured := func(by, memory float64) *kubeStore {
		x := &kubeStore{program: program{path: os.Args[0]}, inPlace: []float64{100 * by}}
		x.rest = kubeRest{received: 1000 * by, cpu: by, memory: memoryOfMB(memory)}
		x.rest.added, x.rest.heard = []float64{by}, []float64{1}
		return x
	}
	for _, x := range []struct {
		name string
		peer *kubeStore
		want map[string]string // by figure: "none" for no limit, else the limit and whether it is reached
	}{
		{"with flannel", measured(12, 300), map[string]string{
			"KubeStart": "200 true", "KubeRestReceived": "2.40 true", "KubeRestCPU": "2.40 true",
			"KubeMemoryRest": "36 true", "KubeMemoryPeak": "none",
			"KubeAddedHalf": "5 true", "KubeAddedMost": "20 true",
		}},
		{"with a small one", measured(8, 60), map[string]string{
			"KubeRestCPU": "1.60 false", "KubeMemoryRest": "30 false",
		}},
		{"without", nil, map[string]string{
			"KubeStart": "200 true", "KubeRestCPU": "none", "KubeMemoryRest": "36 true",
		}},
	} {
		b := &bench{Options: Options{KubeRest: time.Minute}, report: &Report{}}
		if err := b.kubeReport(&kubeCluster{nodes: 7}, measured(1, 30), measured(2, 35), x.peer); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, f := range b.report.Figures {
			name := strings.TrimSuffix(f.Name, "/nodes=7")
			if got[name] = "none"; f.Limit != nil {
				got[name] = fmt.Sprintf("%s %t", number(*f.Limit), *f.Reached)
			}
			if (f.Peer != nil) != (x.peer != nil) && name != "KubeList" {
				t.Errorf("%s: %s has the peer's figure %+v", x.name, name, f.Peer)
			}
		}
		for name, want := range x.want {
			if got[name] != want {
				t.Errorf("%s: %s has the limit %q, want %q", x.name, name, got[name], want)
			}
		}
	}
}

func memoryOfMB(mb float64) memory { return memory{Peak: 2e6 * mb, Resident: 1e6 * mb, Anon: 5e5 * mb} }
