package command

import (
	"errors"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/doctor"
)

func TestShowReport(t *testing.T) {
	r := doctor.Report{Node: "node1", At: now, Result: doctor.Failure, Peers: 4999, Probed: 20, Findings: []doctor.Finding{
		{Check: "forwarding", Level: doctor.Failure, Evidence: "net.ipv4.ip_forward is 0", Advice: "sysctl -w net.ipv4.ip_forward=1"},
		{Check: "bridge", Level: doctor.Warning, Evidence: "bridge cni0 has MTU 1300, and the pod MTU is 1430: larger packets to its pods are dropped", Advice: "ip link set cni0 mtu 1430"},
		{Check: "kernel", Level: doctor.Pass, Evidence: "Linux 6.12.1 has all required features"},
	}}
	var out strings.Builder
	showReport(&out, style{}, r)
	out.WriteString("\n")
	showReport(&out, style{colour: true}, doctor.Report{Peers: 1, Findings: r.Findings})
	golden(t, "doctor.txt", out.String())
	for level, want := range map[doctor.Level]error{doctor.Pass: nil, doctor.Warning: Exit{3}, doctor.Failure: Exit{2}} {
		if got := exitOfReport(level); !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", level, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out}
	for i := range 100 {
		p.show("probing", i, 100)
	}
	p.show("probing", 100, 100)
	p.show("waiting", 0, 0)
	p.clear()
	got := out.String()
	for _, want := range []string{"\r\x1b[Kprobing, 0 of 100…", "\r\x1b[Kprobing, 100 of 100…", "\r\x1b[Kwaiting…"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if !strings.HasSuffix(got, "\r\x1b[K") || strings.Count(got, "…") > 10 {
		t.Errorf("%q, want less, and nothing left at the end", got)
	}
	silent := progressFor(&out)
	silent.show("probing", 1, 2)
	silent.clear()
	if out.String() != got {
		t.Error("there is progress where there is no terminal")
	}
}

func TestDoctorFlags(t *testing.T) {
	for _, args := range [][]string{{"-o", "yaml"}, {"--timeout", "0s"}, {"--sample", "0"}, {"something"}, {"--check", "peers,nonsense"}} {
		c := Doctor()
		c.SetArgs(args)
		c.SilenceErrors, c.SilenceUsage = true, true
		if err := c.Execute(); err == nil || errors.As(err, new(Exit)) {
			t.Errorf("%q: %v, want an error", args, err)
		}
	}
}
