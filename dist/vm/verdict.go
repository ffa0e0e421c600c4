package vm

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Verdict counts the cases in what virtual machines print, and prints a line for each. Its methods, and those of its
// listeners, are safe for concurrent use.
type Verdict struct {
	// Passed and Failed are numbers of cases. Failed is complete after [Verdict.Close].
	Passed, Failed int

	mu      sync.Mutex
	out     io.Writer
	missing []string // cases without a result, in their order
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

// Listener takes what one virtual machine prints.
type Listener struct {
	verdict *Verdict
	used    func() time.Duration // the processor time that the virtual machine has taken
	before  time.Duration        // of it, when the case began
	running string               // the case that runs; empty: none
	outcome string               // of it, as the package testing has it; empty: none yet
	took    string
	output  []string // of it
}

// Listen returns a listener for a virtual machine. used is how much processor time it has taken.
func (v *Verdict) Listen(used func() time.Duration) *Listener {
	return &Listener{verdict: v, used: used}
}

// result is the line of the package testing about a top-level test.
var result = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \((\S+)\)$`)

// measured comes before what a test logs to be shown although it passes.
const measured = "measured: "

// Line takes a line that the virtual machine has printed.
func (l *Listener) Line(line string) {
	l.verdict.mu.Lock()
	defer l.verdict.mu.Unlock()
	line = strings.TrimRight(line, "\r\n")
	switch {
	case strings.HasPrefix(line, BootedMark):
		fmt.Fprintf(l.verdict.out, "vm: booted %s\n", strings.TrimPrefix(line, BootedMark))
	case strings.HasPrefix(line, TroubleMark):
		fmt.Fprintf(l.verdict.out, "vm: %s\n", strings.TrimPrefix(line, TroubleMark))
	case strings.HasPrefix(line, beginMark):
		l.running, l.outcome, l.output, l.before = strings.TrimPrefix(line, beginMark), "", nil, l.used()
	case strings.HasPrefix(line, endMark):
		_, problem, _ := strings.Cut(strings.TrimPrefix(line, endMark), " ")
		l.end(problem)
	case l.running != "":
		l.output = append(l.output, line)
		if m := result.FindStringSubmatch(line); m != nil && strings.HasSuffix(l.running, "/"+m[2]) {
			l.outcome, l.took = m[1], m[3]
		}
	}
}

// Close fails the case that runs, because the virtual machine has ended for the given reason.
func (l *Listener) Close(reason string) {
	l.verdict.mu.Lock()
	defer l.verdict.mu.Unlock()
	if l.running != "" {
		l.outcome = ""
		l.end(reason)
	}
}

// end judges the case that has run. problem is what is wrong with the way in which its process ended.
func (l *Listener) end(problem string) {
	name, v := l.running, l.verdict
	l.running = ""
	v.missing = slices.DeleteFunc(v.missing, func(n string) bool { return n == name })
	switch {
	case l.outcome == "SKIP":
		v.fail(name, "was skipped", l.output)
	case l.outcome == "":
		v.fail(name, strings.TrimSuffix("has no result; "+problem, "; "), l.output)
	case l.outcome == "FAIL" || problem != "":
		v.fail(name, strings.TrimSuffix("failed; "+problem, "; "), l.output)
	default:
		v.Passed++
		fmt.Fprintf(v.out, "vm: passed %s (%s there, %s of processor time)\n",
			name, l.took, (l.used() - l.before).Round(time.Second))
		for _, line := range l.output {
			if _, text, is := strings.Cut(line, measured); is {
				fmt.Fprintf(v.out, "vm:        %s\n", text)
			}
		}
	}
}

// fail counts a failed case and prints its output.
func (v *Verdict) fail(name, how string, output []string) {
	v.Failed++
	for _, line := range output {
		fmt.Fprintf(v.out, "    %s\n", line)
	}
	fmt.Fprintf(v.out, "vm: FAILED %s: it %s\n", name, how)
}

// Close fails all cases that have no result, because the virtual machines have ended for the given reason, and prints
// the last line.
func (v *Verdict) Close(reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, name := range v.missing {
		v.fail(name, "did not run: "+reason, nil)
	}
	fmt.Fprintf(v.out, "vm: %d passed, %d failed\n", v.Passed, v.Failed)
}
