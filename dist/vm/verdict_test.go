package vm

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVerdict: a case has passed only if it was expected and says so, and its process ended well.
func TestVerdict(t *testing.T) {
	suites := []Suite{{Name: "s", Tests: []string{"TestA", "TestB", "TestC", "TestD", "TestE", "TestF", "TestG"},
		Without: map[string]string{"TestX": "it is slow"}}}
	var out strings.Builder
	v := NewVerdict(&out, suites)
	var used time.Duration
	l := v.Listen(func() time.Duration { used += 3 * time.Second; return used })
	for _, line := range []string{
		BootedMark + "6.1 after 3s", TroubleMark + "a module",
		Begin("s/TestA"), "=== RUN   TestA", "    a_test.go:1: measured: 0.5 of it", "--- PASS: TestA (0.50s)", "PASS", End("s/TestA", nil),
		Begin("s/TestB"), "    b_test.go:7: it broke", "--- FAIL: TestB (1.00s)", End("s/TestB", nil),
		Begin("s/TestC"), "--- SKIP: TestC (0.00s)", End("s/TestC", nil),
		Begin("s/TestD"), "testing: warning: no tests to run", "PASS", End("s/TestD", nil),
		Begin("s/TestE"), "--- PASS: TestE (0.00s)", End("s/TestE", errors.New("signal:\nkilled")),
		Begin("s/TestF"), "    --- PASS: TestF (0.00s)",
	} {
		l.Line(line + "\r\n")
	}
	l.Close("it has ended")
	v.Close("it has ended")
	const want = `vm: left out: s/TestX: it is slow
vm: booted 6.1 after 3s
vm: a module
vm: passed s/TestA (0.50s there, 3s of processor time)
vm:        0.5 of it
        b_test.go:7: it broke
    --- FAIL: TestB (1.00s)
vm: FAILED s/TestB: it failed
    --- SKIP: TestC (0.00s)
vm: FAILED s/TestC: it was skipped
    testing: warning: no tests to run
    PASS
vm: FAILED s/TestD: it has no result
    --- PASS: TestE (0.00s)
vm: FAILED s/TestE: it failed; signal: killed
        --- PASS: TestF (0.00s)
vm: FAILED s/TestF: it has no result; it has ended
vm: FAILED s/TestG: it did not run: it has ended
vm: 1 passed, 6 failed
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestChoose(t *testing.T) {
	suites := []Suite{
		{Name: "a", Tests: []string{"TestOne", "TestTwo", "TestThree"}, Short: []string{"TestTwo"}, Long: []string{"TestThree"}},
		{Name: "b", Tests: []string{"TestOne"}},
	}
	for _, tt := range []struct {
		pattern     string
		short, long bool
		want        string
	}{
		{"", false, false, "a/TestOne a/TestTwo b/TestOne"}, {"", true, false, "a/TestTwo"},
		{"", false, true, "a/TestOne a/TestTwo a/TestThree b/TestOne"}, {"^b/|T[wh]", false, false, "a/TestTwo a/TestThree b/TestOne"},
	} {
		var names []string
		for _, s := range Choose(suites, regexp.MustCompile(tt.pattern), tt.short, tt.long) {
			names = append(names, s.Cases()...)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%q, short %t, long %t: got %s, want %s", tt.pattern, tt.short, tt.long, got, tt.want)
		}
	}
}

func TestComplete(t *testing.T) {
	s := Suite{Dir: "dist/vm", Without: map[string]string{"TestVerdict": "reason"}}
	s, err := s.Complete("../..")
	if err != nil || !slices.Contains(s.Tests, "TestComplete") || slices.Contains(s.Tests, "TestVerdict") {
		t.Errorf("the tests are %q, %v", s.Tests, err)
	}
	if _, err := (Suite{Dir: "dist/vm/cmd/vm"}).Complete("../.."); err == nil {
		t.Error("a package without tests is a suite")
	}
}

// TestSuites: each case is named once, the short ones are cases, and packages are named by what they are.
func TestSuites(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Suites() {
		for name := range s.Without {
			all, err := Suite{Dir: s.Dir}.Complete("../..")
			if err != nil || !slices.Contains(all.Tests, name) {
				t.Errorf("%s has no test %s to leave out, %v", s.Dir, name, err)
			}
		}
		for _, name := range append(s.Cases(), s.Name+"/") {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		for _, name := range slices.Concat(s.Short, s.Long) {
			if !seen[s.Name+"/"+name] {
				t.Errorf("%s/%s is no case", s.Name, name)
			}
		}
	}
}

// TestPart: virtual machines share the runs of a plan, each of which is one's.
func TestPart(t *testing.T) {
	p := Plan{Runs: []Run{{Case: "a"}, {Case: "b"}, {Case: "c"}}}
	for part, want := range map[string]string{"": "abc", "0/1": "abc", "0/2": "ac", "1/2": "b", "2/2": "error", "x": "error"} {
		runs, err := p.Part(part)
		got := ""
		for _, r := range runs {
			got += r.Case
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, %v, want %s", part, got, err, want)
		}
	}
}
