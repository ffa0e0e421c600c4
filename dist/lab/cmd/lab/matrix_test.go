package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/selvage-net/selvage/dist/lab"
)

func TestMatrix(t *testing.T) {
	c := newLabCommand(t)
	if code, out := c.run("matrix", "--list", "--only", "^dual host-gw"); code != 0 || strings.Count(out, "\n") != 8 {
		t.Errorf("the list: code %d, %s", code, out)
	}
	for _, args := range [][]string{{"--only", "no-such"}, {"--only", "("}, {"x"}, {"--no-such"}} {
		if code, out := c.run(append([]string{"matrix"}, args...)...); code != 1 || !strings.Contains(out, "lab: ") {
			t.Errorf("lab matrix %q: code %d, output %s", args, code, out)
		}
	}
	code, out := c.run("matrix", "-n", "2", "--only", "ipv6 vxlan iptables-nft kubernetes segments=1 mtu=1500", "--bin", binDir)
	for _, want := range []string{" 32/0 ", "1 of 1 combinations work"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("one combination: code %d, %s, want %q", code, out, want)
		}
	}
	const width = 110 // columns
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(line) > width+1 {
			t.Errorf("longer than %d columns: %s", width, line)
		}
	}
	c.expectNothing()
}

func TestPrintReports(t *testing.T) {
	all := lab.Combinations()
	reports := []lab.Report{
		{Combination: all[0], Probes: 7, Full: 7, Took: time.Second},
		{Combination: all[1], Probes: 7, Lost: 4, Full: 7, Stuck: 1, Fragments: 9, Took: time.Second,
			Problems: []string{"one", "two\nlines", "three", "four"}, Logged: []string{"warning msg=so"}},
	}
	var b strings.Builder
	if printReports(&b, reports, true) {
		t.Error("all is said to be well")
	}
	for _, want := range []string{"FAIL", " 3/4 ", " 6/1 ", "\n  two\n  lines\n", "and 1 more", "logged: warning msg=so", "1 of 2 combinations work; it took 2s."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in the output:\n%s", want, &b)
		}
	}
	if b.Reset(); !printReports(&b, reports[:1], false) {
		t.Errorf("not all is said to be well:\n%s", &b)
	}
}
