package command

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// probed are the probes of a node of a lab of five, of which it reaches all but one.
func probed(own, lost string) mesh.Probes {
	p := mesh.Probes{Family: "IPv4"}
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		x := status.ProbedPeer{Key: "10.5." + n + ".0-24", State: status.Reachable, RTT: 310 * time.Microsecond, Recent: 32, Path: "vxlan"}
		if x.Key == lost {
			x.State, x.Lost = status.Unreachable, 9
		}
		if x.Key != own {
			p.Peers = append(p.Peers, x)
		}
	}
	return p
}

// labMesh is the view of a lab of five nodes: one is stopped, one refuses the config, one is starting, one has drops and repairs, and one is well.
func labMesh() mesh.Cluster {
	var targets []mesh.Target
	var answers []mesh.Answer
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		key := "10.5." + n + ".0-24"
		targets = append(targets, mesh.Target{Key: key, Node: "node" + n, Public: []netip.Addr{netip.MustParseAddr("172.31.0.1" + n)}})
		answers = append(answers, mesh.Answer{Summary: &mesh.Summary{
			Version: 1, Now: now, Age: time.Second, Node: "node" + n, Lease: key, Selvaged: "v1.2.3", Kernel: "6.12.1", Started: now.Add(-time.Hour),
			State: status.Ready, Since: now.Add(-time.Hour), Networks: []string{"10.5.0.0/16"}, Backend: "vxlan", Config: "3f2a1b9c",
			FastPath: &mesh.FastPath{InUse: true}, Peers: status.PeerCounts{Programmed: 4}, Probes: []mesh.Probes{probed(key, "")},
		}, CertificateEnds: now.AddDate(0, 1, 0)})
	}
	s := func(i int) *mesh.Summary { return answers[i-1].Summary }
	answers[4] = mesh.Answer{Code: mesh.NotListening, Text: "172.31.0.15: connect: connection refused"}
	s(1).Probes[0] = probed("10.5.1.0-24", "10.5.5.0-24")
	s(2).Repairs, s(2).Drops = mesh.Count{Total: 9, Lately: 3}, mesh.Count{Total: 400, Lately: 12}
	s(3).State, s(3).ConfigRejected = status.Degraded, true
	s(3).Problems = []mesh.Problem{{Topic: "config", Code: status.ConfigRejected, Since: now.Add(-5 * time.Minute)},
		{Topic: "conflict", Code: status.Conflict, Since: now.Add(-12 * time.Second)}}
	*s(4) = mesh.Summary{Version: 1, Now: now, Node: "node4", Lease: "10.5.4.0-24", Selvaged: "v1.2.2", Started: now.Add(-4 * time.Second), State: status.Starting}
	return mesh.Assemble(targets, answers, now)
}

func TestShowMesh(t *testing.T) {
	var out strings.Builder
	showMesh(&out, style{}, labMesh())
	page, err := os.ReadFile("../../Documentation/mesh.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "node1# selvaged mesh\n"+out.String()+"```") {
		t.Errorf("Documentation/mesh.md does not show\n%s", &out)
	}
	out.WriteString("\n")
	showMesh(&out, style{colour: true, width: 130}, labMesh())
	golden(t, "mesh.txt", out.String())
}

func TestMeshExit(t *testing.T) {
	answered := func(s mesh.Summary) mesh.Cluster {
		s.Now = now
		return mesh.Assemble([]mesh.Target{{}}, []mesh.Answer{{Summary: &s}}, now)
	}
	for name, tt := range map[string]struct {
		view mesh.Cluster
		want error
	}{
		"well": {answered(mesh.Summary{State: status.Ready}), nil},
		"a warning": {answered(mesh.Summary{State: status.Ready, Repairs: mesh.Count{Lately: 1},
			Problems: []mesh.Problem{{Code: status.RouteShadowed, Warning: true}}}), nil},
		"degraded": {answered(mesh.Summary{State: status.Degraded, Problems: []mesh.Problem{{Code: status.Conflict}}}), Exit{2}},
		"starting": {answered(mesh.Summary{State: status.Starting}), Exit{2}},
		"missing":  {mesh.Assemble([]mesh.Target{{}}, []mesh.Answer{{Code: mesh.NoAnswer}}, now), Exit{2}},
	} {
		if got := meshExit(tt.view); !errors.Is(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
