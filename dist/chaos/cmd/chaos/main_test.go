package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/chaos"
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
		{"an unknown flag", []string{"--onyl", "route"}, 1, "chaos: unknown flag: --onyl"},
		{"a flag without its value", []string{"--walk"}, 1, "chaos: flag needs an argument: --walk"},
		{"no duration", []string{"--walk", "10"}, 1, `invalid argument "10" for "--walk" flag`},
		{"a negative number", []string{"--repeat", "-1"}, 1, "chaos: --repeat=-1: want at least 1"},
		{"a short fight", []string{"--fight", "2s"}, 1, "chaos: --fight=2s: want at least 3s"},
		{"no leases that can be", []string{"--leases", "-5"}, 1, "chaos: --leases=-5: want 0 to 32768"},
		{"too many leases", []string{"--leases", "40000"}, 1, "chaos: --leases=40000: want 0 to 32768"},
		{"arguments", []string{"route", "deleted"}, 1, `chaos: takes no argument, got ["route" "deleted"]`},
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

// TestList: every fault has a line of its own, so that --only can pick each.
func TestList(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--list"}, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	faults := chaos.Faults()
	if len(lines) != len(faults) {
		t.Fatalf("%d lines for %d faults:\n%s", len(lines), len(faults), out.String())
	}
	names := map[string]bool{}
	for i, f := range faults {
		class, name, _ := strings.Cut(lines[i], " ")
		if class != string(f.Class) || strings.TrimSpace(name) != f.Name || names[f.Name] {
			t.Errorf("line %q, want class %q and name %q, and no other of that name", lines[i], f.Class, f.Name)
		}
		names[f.Name] = true
	}
}

// TestDefaults: who asks for some faults does not get the rest as well.
func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		args         string
		walk, legacy bool
		leases       int
	}{
		{"", true, true, 5000},
		{"--only route", false, false, 0},
		{"--only none --leases 7", false, false, 7},
		{"--only none --walk 1s", true, false, 0},
		{"--only jump --legacy", false, true, 0},
		{"--walk 0 --leases 0 --legacy=false", false, false, 0},
	} {
		var errs bytes.Buffer
		f, err := parse(strings.Fields(tt.args), &errs)
		if err != nil || f.walk > 0 != tt.walk || f.legacy != tt.legacy || f.leases != tt.leases || f.options.Bin == "" {
			t.Errorf("%q: got walk %s, legacy %t, %d leases, bin %q, %v; want walk %t, legacy %t, %d leases and a directory",
				tt.args, f.walk, f.legacy, f.leases, f.options.Bin, err, tt.walk, tt.legacy, tt.leases)
		}
	}
}
