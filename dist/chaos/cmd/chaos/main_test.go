package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestRun is about what is said and done before there is a sandbox.
func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string // on stderr
	}{
		{"no regular expression", []string{"--only", "route["}, 1, "chaos: --only: error parsing regexp: missing closing ]: `[`"},
		{"an unknown flag", []string{"--unknown", "route"}, 1, "chaos: unknown flag: --unknown"},
		{"a flag without its value", []string{"--walk"}, 1, "chaos: flag needs an argument: --walk"},
		{"no families", []string{"--families", "ipv5"}, 1, `chaos: --families: families "ipv5": want ipv4, ipv6 or dual`},
		{"no store", []string{"--store", "consul"}, 1, `chaos: --store: store "consul": want etcd or kubernetes`},
		{"no duration", []string{"--walk", "10"}, 1, `invalid argument "10" for "--walk" flag`},
		{"a negative number", []string{"--repeat", "-1"}, 1, "chaos: --repeat=-1: want at least 1"},
		{"a short fight", []string{"--fight", "2s"}, 1, "chaos: --fight=2s: want at least 3s"},
		{"no leases that can be", []string{"--leases", "-5"}, 1, "chaos: --leases=-5: want 0 to 32768"},
		{"a walk of no length", []string{"--walk", "-1s"}, 1, "chaos: --walk=-1s: want 0 or more"},
		{"too many leases", []string{"--leases", "40000"}, 1, "chaos: --leases=40000: want 0 to 32768"},
		{"arguments", []string{"route", "deleted"}, 1, `chaos: takes no argument, got ["route" "deleted"]`},
		{"no round", []string{"--rounds", "vxlan,bridge"}, 1, `chaos: --rounds: there is no round "bridge", want some of vxlan,`},
		{"help", []string{"--help"}, 0, "--only string"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(tt.args, &out, &errs); code != tt.code || !strings.Contains(errs.String(), tt.says) || out.Len() > 0 {
				t.Errorf("exit code %d, want %d; it printed %q, want nothing, and on stderr %q, want %q",
					code, tt.code, out.String(), errs.String(), tt.says)
			}
		})
	}
}

// TestList: every fault of a round has a line of its own, so that --only can pick each.
func TestList(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--list"}, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	listed, seen := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(out.String()) {
		round, _, _ := strings.Cut(line, " ")
		listed[round]++
		if seen[line] {
			t.Errorf("twice: %s", line)
		}
		seen[line] = true
	}
	for _, r := range rounds() {
		f := flags{leases: 7}
		if n := len(r.options(f).Faults()); n == 0 || listed[r.name] != n {
			t.Errorf("round %s: %d lines for %d faults", r.name, listed[r.name], n)
		}
	}
	out.Reset()
	if code := run([]string{"--list", "--rounds", "direct"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "direct route deleted") ||
		strings.Contains(out.String(), "FDB") {
		t.Errorf("with DirectRouting: exit code %d:\n%s", code, out.String())
	}
}

// TestDefaults: who asks for some faults does not get the rest as well.
func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		args   string
		walk   bool
		rounds string
	}{
		{"", true, "vxlan nftables legacy direct host-gw wireguard leases"},
		{"--only route", false, "vxlan"},
		{"--only none --leases 7", false, "vxlan leases"},
		{"--only none --walk 1s", true, "vxlan"},
		{"--only jump --rounds legacy", false, "legacy"},
		{"--walk 0 --leases 0", false, "vxlan nftables legacy direct host-gw wireguard"},
	} {
		var errs bytes.Buffer
		f, err := parse(strings.Fields(tt.args), &errs)
		if rounds := strings.Join(f.rounds, " "); err != nil || f.walk > 0 != tt.walk || rounds != tt.rounds || f.options.Bin == "" || f.seed == 0 {
			t.Errorf("%q: got walk %s, rounds %q, bin %q, seed %d, %v; want walk %t, rounds %q, a directory and a seed",
				tt.args, f.walk, rounds, f.options.Bin, f.seed, err, tt.walk, tt.rounds)
		}
	}
}
