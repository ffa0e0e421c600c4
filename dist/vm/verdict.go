package vm

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Verdict counts the cases in what the virtual machine prints, and prints a line for each.
type Verdict struct {
	// Passed and Failed are numbers of cases. Failed is complete after [Verdict.Close].
	Passed, Failed int

	out     io.Writer
	missing []string // cases without a result, in their order
	running string   // the case that runs; empty: none
	outcome string   // of it, as the package testing has it; empty: none yet
	took    string
	output  []string // of it
}

// NewVerdict expects the cases of suites, and names the tests that are none.
func NewVerdict(out io.Writer, suites []Suite) *Verdict {
	v := &Verdict{out: out}
	for _, s := range suites {
		for _, test := range slices.Sorted(maps.Keys(s.Without)) {
			fmt.Fprintf(out, "vm: left out: %s/%s: %s\n", s.Name, test, s.Without[test])
		}
		v.missing = append(v.missing, s.Cases()...)
	}
	return v
}

// result is the line of the package testing about a top-level test.
var result = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \((\S+)\)$`)

// measured comes before what a test logs to be shown although it passes.
const measured = "measured: "

// Line takes a line that the virtual machine has printed.
func (v *Verdict) Line(line string) {
	line = strings.TrimRight(line, "\r\n")
	switch {
	case strings.HasPrefix(line, BootedMark):
		fmt.Fprintf(v.out, "vm: booted %s\n", strings.TrimPrefix(line, BootedMark))
	case strings.HasPrefix(line, TroubleMark):
		fmt.Fprintf(v.out, "vm: %s\n", strings.TrimPrefix(line, TroubleMark))
	case strings.HasPrefix(line, beginMark):
		v.running, v.outcome, v.output = strings.TrimPrefix(line, beginMark), "", nil
	case strings.HasPrefix(line, endMark):
		_, problem, _ := strings.Cut(strings.TrimPrefix(line, endMark), " ")
		v.end(problem)
	case v.running != "":
		v.output = append(v.output, line)
		if m := result.FindStringSubmatch(line); m != nil && strings.HasSuffix(v.running, "/"+m[2]) {
			v.outcome, v.took = m[1], m[3]
		}
	}
}

// end judges the case that has run. problem is what is wrong with the way in which its process ended.
func (v *Verdict) end(problem string) {
	name := v.running
	v.running = ""
	v.missing = slices.DeleteFunc(v.missing, func(n string) bool { return n == name })
	switch {
	case v.outcome == "SKIP":
		v.fail(name, "was skipped")
	case v.outcome == "":
		v.fail(name, strings.TrimSuffix("has no result; "+problem, "; "))
	case v.outcome == "FAIL" || problem != "":
		v.fail(name, strings.TrimSuffix("failed; "+problem, "; "))
	default:
		v.Passed++
		fmt.Fprintf(v.out, "vm: passed %s (%s)\n", name, v.took)
		for _, line := range v.output {
			if _, text, is := strings.Cut(line, measured); is {
				fmt.Fprintf(v.out, "vm:        %s\n", text)
			}
		}
	}
}

// fail counts a failed case and prints its output.
func (v *Verdict) fail(name, how string) {
	v.Failed++
	for _, line := range v.output {
		fmt.Fprintf(v.out, "    %s\n", line)
	}
	v.output = nil
	fmt.Fprintf(v.out, "vm: FAILED %s: it %s\n", name, how)
}

// Close fails all cases that have no result, because the virtual machine has ended for the given reason, and prints the
// last line.
func (v *Verdict) Close(reason string) {
	if v.running != "" {
		v.outcome = ""
		v.end(reason)
	}
	for _, name := range v.missing {
		v.fail(name, "did not run: "+reason)
	}
	fmt.Fprintf(v.out, "vm: %d passed, %d failed\n", v.Passed, v.Failed)
}
