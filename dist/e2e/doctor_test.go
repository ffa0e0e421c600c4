package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/subnet"
)

const (
	failure, warns, passes = doctor.Failure, doctor.Warning, doctor.Pass

	restartToWrite = "systemctl restart selvaged, which writes it again"
	findForward    = "; find what sets it to 0: grep -rs forward /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d"
)

// ailment is something that goes wrong on a node, and what a doctor is to say of it.
type ailment struct {
	name string
	harm func()
	heal func()
	want []symptom
}

// treat harms a node in one way after the other.
func (p *patient) treat(all []ailment) {
	for _, a := range all {
		p.t.Run(a.name, func(t *testing.T) {
			whole := p.t
			p.t = t // what fails, fails here
			defer func() { p.t = whole }()
			a.harm()
			p.finds(a.want...)
			a.heal()
		})
	}
}

func one(check string, level doctor.Level, evidence, advice string) []symptom {
	return []symptom{{check, level, evidence, advice}}
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

// documented looks that the documentation has what a doctor says, with whatever addresses and numbers.
func documented(t *testing.T, all []symptom) {
	t.Helper()
	page, err := os.ReadFile("../../Documentation/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	values := regexp.MustCompile(`[0-9a-f]*[0-9:.][0-9a-f:./]*`)
	same := func(s string) string { // one endpoint of etcd, or several
		return strings.ReplaceAll(values.ReplaceAllString(s, "N"), ",httpN", "")
	}
	text := same(string(page))
	for _, s := range all {
		advice := strings.NewReplacer(cniConfs, "/etc/cni/net.d", cniBins, "/opt/cni/bin").Replace(s.advice)
		if !strings.Contains(text, same("→ "+advice+"\n")) && advice != "" {
			t.Errorf("troubleshooting.md has no %s with the advice %q", s.check, advice)
		}
	}
}

// examinations is how many reports may lack a symptom before it is missing: a number and not a time, so that a slow machine, on which the
// daemon takes longer to notice, gets the longer for it.
const (
	examinations = 60
	examineEvery = 250 * time.Millisecond
)

// finds waits until a report has the symptoms: the daemon takes a second to be sure of some.
func (p *patient) finds(want ...symptom) doctor.Report {
	p.t.Helper()
	ctx := testctx.New(p.t)
	for i := 1; ; i++ {
		r := p.examine(ctx)
		err := missing(r, want)
		if err == nil {
			documented(p.t, want)
			return r
		}
		if i == examinations {
			p.t.Error(err)
			return r
		}
		time.Sleep(examineEvery)
	}
}

// healthy waits until a report has neither warnings nor failures.
func (p *patient) healthy(args ...string) {
	p.t.Helper()
	ctx := testctx.New(p.t)
	for i := 1; ; i++ {
		r := p.examine(ctx, args...)
		if r.Result == doctor.Pass && r.Probed == len(p.l.Nodes())-1 {
			return
		}
		if i == examinations {
			p.t.Fatalf("%d of %d probed, and these found where all is well:\n%s", r.Probed, r.Peers, text(r.Findings))
		}
		time.Sleep(examineEvery)
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
			if r := p.examine(t.Context(), "--peer", "node2"); r.Probed != 1 || r.Peers != 2 {
				t.Errorf("%d of %d probed, want the one that was named", r.Probed, r.Peers)
			}
			p.cannot("no such peer", "--peer", "node9")
			p.cannot("want table or json", "-o", "yaml")
		})
	}
}
