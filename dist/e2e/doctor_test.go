package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/subnet"
)

// Where a node's container runtime looks, in the lab: each node has a /run of its own.
const (
	cniConfs = "/run/cni/net.d"
	cniBins  = "/run/cni/bin"
	conflist = cniConfs + "/10-selvage.conflist"
)

// patient is a node with a doctor.
type patient struct {
	*lab.Node
	t *testing.T
	l *lab.Lab
}

// admit puts on a node what an installation has.
func admit(t *testing.T, l *lab.Lab, n *lab.Node) *patient {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{n, t, l}
	p.must(n.Do(func() error {
		err := errors.Join(os.MkdirAll(cniConfs, 0o755), os.MkdirAll(cniBins, 0o755), os.WriteFile(conflist, []byte(lab.DefaultCNI), 0o644))
		for from, to := range map[string]string{"selvage": "selvage", "cni/bridge": "bridge", "cni/host-local": "host-local", "cni/portmap": "portmap"} {
			err = errors.Join(err, os.Symlink(filepath.Join(dir, from), filepath.Join(cniBins, to)))
		}
		return err
	}))
	return p
}

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// run runs a program on the node.
func (p *patient) run(args ...string) {
	p.t.Helper()
	_, err := p.Output(context.WithoutCancel(p.t.Context()), args...)
	p.must(err)
}

// examine has the node examined. The exit code is to be what the report says.
func (p *patient) examine(ctx context.Context, args ...string) (r doctor.Report) {
	p.t.Helper()
	dir, err := filepath.Abs(bin)
	p.must(err)
	argv := append([]string{filepath.Join(dir, "selvaged"), "doctor", "-o", "json", "--cni-conf-dir", cniConfs, "--cni-bin-dir", cniBins}, args...)
	var out, problems bytes.Buffer
	err = p.Exec(ctx, argv, lab.Stdio{Out: &out, Err: &problems})
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		p.must(err)
	}
	if e := json.Unmarshal(out.Bytes(), &r); e != nil || code != map[doctor.Level]int{doctor.Pass: 0, doctor.Failure: 2, doctor.Warning: 3}[r.Result] {
		p.t.Fatalf("exit code %d, %v, %s\n%s", code, e, problems.String(), out.String())
	}
	if problems.Len() > 0 {
		p.t.Errorf("it printed %q where there is no terminal", problems.String())
	}
	return r
}

// symptom is a finding that is to be made.
type symptom struct {
	check    string
	level    doctor.Level
	evidence string // a part of it
	advice   string // all of it
}

// text writes findings one a line.
func text(findings []doctor.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-8s %s: %s\n         → %s\n", f.Level, f.Check, f.Evidence, f.Advice)
	}
	return b.String()
}

// missing says which symptoms a report lacks.
func missing(r doctor.Report, want []symptom) error {
	for _, s := range want {
		if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
			return f.Check == s.check && f.Level == s.level && strings.Contains(f.Evidence, s.evidence) && f.Advice == s.advice
		}) {
			return fmt.Errorf("%s, %s, %q, %q is missing of\n%s", s.check, s.level, s.evidence, s.advice, text(r.Findings))
		}
	}
	return nil
}

// finds waits until a report has the symptoms: the daemon takes a second to be sure of some.
func (p *patient) finds(want ...symptom) doctor.Report {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for {
		r := p.examine(ctx)
		err := missing(r, want)
		if err == nil {
			return r
		}
		select {
		case <-ctx.Done():
			p.t.Error(err)
			return r
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// healthy waits until a report has neither warnings nor failures.
func (p *patient) healthy(args ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for {
		r := p.examine(ctx, args...)
		if r.Result == doctor.Pass && r.Probed == len(p.l.Nodes())-1 {
			return
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("%d of %d probed, and these found where all is well:\n%s", r.Probed, r.Peers, text(r.Findings))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestDoctorFindsNothing: where all is well, there is nothing to say, with pods and without.
func TestDoctorFindsNothing(t *testing.T) {
	for _, tt := range []struct {
		families []subnet.Family
		backend  string
		segments int
		mtu      int
	}{
		{[]subnet.Family{subnet.IPv4}, `{"Type":"vxlan"}`, 2, 0},
		{[]subnet.Family{subnet.IPv6}, `{"Type":"vxlan"}`, 1, 9000},
		{[]subnet.Family{subnet.IPv4, subnet.IPv6}, `{"Type":"vxlan","DirectRouting":true}`, 2, 0},
		{[]subnet.Family{subnet.IPv4, subnet.IPv6}, `{"Type":"host-gw"}`, 1, 0},
	} {
		t.Run(lab.FamiliesName(tt.families)+" "+tt.backend, func(t *testing.T) {
			l := start(t, lab.Options{
				Nodes: 3, Families: tt.families, Segments: tt.segments, MTU: tt.mtu, Config: lab.NetworkConfig(tt.families, tt.backend, lab.NodesChoose),
			})
			p := admit(t, l, l.Nodes()[0])
			p.healthy()
			podOnEach(t.Context(), t, l)
			p.healthy("--all")
		})
	}
}
