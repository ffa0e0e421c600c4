// Package results reads what test suites say of their cases in formats for programs: the JSON report of Ginkgo, JUnit's
// XML, and the events of test2json. It makes a table of them.
package results

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Outcome is how a case ended.
type Outcome string

// All outcomes.
const (
	Passed Outcome = "passed"
	Failed Outcome = "failed"
	NotRun Outcome = "not run"
)

// Case is one case of a suite.
type Case struct {
	Suite string
	Name  string
	Outcome
	Reason string        // why it failed or was not run; can have several lines
	Took   time.Duration // zero: not known
}

// Count is the number of cases by outcome.
type Count struct{ Passed, Failed, NotRun int }

func (c Count) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d not run", c.Passed, c.Failed, c.NotRun)
}

// CountOf counts cases.
func CountOf(cases []Case) (n Count) {
	for _, c := range cases {
		switch c.Outcome {
		case Passed:
			n.Passed++
		case Failed:
			n.Failed++
		default:
			n.NotRun++
		}
	}
	return n
}

// WriteTable writes a line for each case, those of one outcome together with the failed ones last, and the reasons of
// what did not pass. After it come a line for each suite, and as the last one the counts of all.
func WriteTable(w io.Writer, cases []Case) error {
	order := []Outcome{Passed, NotRun, Failed}
	sorted := slices.Clone(cases)
	slices.SortStableFunc(sorted, func(a, b Case) int {
		return cmp.Compare(slices.Index(order, a.Outcome), slices.Index(order, b.Outcome))
	})
	var b strings.Builder
	for _, c := range sorted {
		fmt.Fprintf(&b, "%-8s %6.1fs  %-8s %s\n", c.Outcome, c.Took.Seconds(), c.Suite, c.Name)
		if c.Reason != "" {
			fmt.Fprintf(&b, "%26s%s\n", "", firstLine(c.Reason))
		}
	}
	for _, name := range suites(cases) {
		of := slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return c.Suite != name })
		fmt.Fprintf(&b, "%s: %s\n", name, CountOf(of))
	}
	fmt.Fprintf(&b, "%s\n", CountOf(cases))
	_, err := io.WriteString(w, b.String())
	return err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

func suites(cases []Case) (names []string) {
	for _, c := range cases {
		if !slices.Contains(names, c.Suite) {
			names = append(names, c.Suite)
		}
	}
	return names
}
