package command

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/policyview"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy/connection"
	"github.com/selvage-net/selvage/network/policy/manifest"
)

// policyTest compares policies with expectations.
func policyTest() *cobra.Command {
	var (
		q query
		f policyFiles
	)
	c := &cobra.Command{
		Use:   "test FILE...",
		Short: "Test network policies against expectations",
		Long: `test compares what network policies allow with what their author expects. Each FILE is a file or a
directory with YAML or JSON as kubectl reads and writes it, or - for standard input: policies, namespaces, and pods or
Deployments and other workloads. Objects of other kinds are ignored. At least one file has expectations:

  apiVersion: selvage.io/v1
  kind: PolicyTest
  metadata: {name: shop}
  connections:
  - {from: shop/web, to: shop/db, ports: 5432, expect: allow, by: shop/db}
  - {from: ["*/*", "!shop/web"], to: shop/db, expect: deny}
  - {from: shop/web, to: 192.0.2.7, ports: [443, 53/UDP], expect: deny}

from and to are pods, as namespace/name or a pattern, or addresses. Without ports, the connection is about any protocol
and port. by names policies that have to decide it.

Exit codes: 0 as expected, 2 not so, or a policy was not understood, 1 any error, such as a file that cannot be read.`,
		Example: `  selvaged policy test deploy/ policy-test.yaml
  helm template shop/ | selvaged policy test - policy-test.yaml
  kustomize build | selvaged policy test - policy-test.yaml -o junit > policy.xml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(testOutputs(), q.output) {
				return fmt.Errorf("--output: %q, want %s", q.output, strings.Join(testOutputs(), ", "))
			}
			cluster, tests, err := f.read(cmd, args)
			if err == nil && len(tests) == 0 {
				err = errors.New("no file has expectations: want a document with kind: " + connection.TestKind +
					", see selvaged policy test --help")
			}
			if err != nil {
				return err
			}
			report, err := runTests(cluster, tests)
			if err != nil {
				return err
			}
			return showTestReport(cmd.OutOrStdout(), q, report)
		},
	}
	f.flags(c.Flags())
	c.Flags().StringVarP(&q.output, "output", "o", "table", "output format: "+strings.Join(testOutputs(), ", "))
	CompleteFlag(c, "output", testOutputs()...)
	return c
}

func testOutputs() []string { return []string{"table", "json", "junit"} }

// testReport is the result of all tests.
type testReport struct {
	OK    bool         `json:"ok"`
	Tests []testResult `json:"tests"`
	// NotUnderstood are the policies of which a part was not understood.
	NotUnderstood []string `json:"not_understood,omitempty"`
}

// testResult is the result of a test.
type testResult struct {
	Name        string              `json:"name"`
	Place       string              `json:"place"` // file:line
	Connections []expectationResult `json:"connections"`
}

// expectationResult is the result of an expectation.
type expectationResult struct {
	Name        string           `json:"name,omitempty"`
	Text        string           `json:"text"` // the expectation in a line
	Expect      string           `json:"expect"`
	Checked     int              `json:"checked"` // number of connections, by pods, family and port
	Differences []testDifference `json:"differences,omitempty"`
}

// testDifference is a connection that is not as expected.
type testDifference struct {
	Verdict status.PolicyVerdict `json:"verdict"` // of the ports that differ
	// Missing are the policies of the expectation that did not decide, if the verdict is otherwise as expected.
	Missing []string `json:"missing,omitempty"`
}

// runTests compares the policies of files with expectations.
func runTests(c *manifest.Cluster, tests []connection.Test) (report testReport, err error) {
	w := worldOf(c)
	report.OK = true
	for _, t := range tests {
		results, err := w.Run(t)
		if err != nil {
			return report, err
		}
		shown := testResult{Name: t.Name, Place: t.Place}
		for _, r := range results {
			e := expectationResult{Name: r.Expectation.Name, Text: r.Expectation.String(), Expect: r.Expectation.Want(),
				Checked: r.Checked}
			for _, d := range r.Differences {
				verdict := policyview.Verdicts(w, []connection.Answer{d.Answer})[0]
				e.Differences = append(e.Differences, testDifference{verdict, d.Missing})
				report.OK = false
			}
			shown.Connections = append(shown.Connections, e)
		}
		report.Tests = append(report.Tests, shown)
	}
	for _, p := range policyview.List(w, "") {
		if len(p.Problems) > 0 {
			report.NotUnderstood = append(report.NotUnderstood, p.Key())
			report.OK = false
		}
	}
	return report, nil
}

// showTestReport shows a report. The error is the exit code.
func showTestReport(out io.Writer, q query, report testReport) (err error) {
	if q.output == "junit" {
		writeJUnit(out, report.junit())
	} else if err = show(out, q, report, showTests); err != nil {
		return err
	}
	if !report.OK {
		return Exit{ExitDegraded}
	}
	return nil
}

// label returns the expectation's name, if it has one, and the expectation.
func (e expectationResult) label() string {
	if e.Name == "" {
		return e.Text
	}
	return e.Name + ": " + e.Text
}

// showTests shows a report as text: a line for each expectation, and what differs.
func showTests(w io.Writer, report testReport) {
	st := styleFor(w)
	connections, differing := 0, 0
	for _, t := range report.Tests {
		fmt.Fprintln(w, st.bold(t.Name))
		for _, e := range t.Connections {
			connections += e.Checked
			if len(e.Differences) == 0 {
				fmt.Fprintf(w, "  %s    %s\n", st.good("ok"), e.label())
				continue
			}
			differing++
			fmt.Fprintf(w, "  %s  %s\n", st.bad("FAIL"), e.label())
			for _, d := range e.Differences {
				showDifference(w, st, d)
			}
		}
	}
	for _, name := range report.NotUnderstood {
		fmt.Fprintf(w, "%s  policy %s was not understood\n", st.bad("FAIL"), name)
	}
	fmt.Fprintf(w, "%d connections checked; %d expectations not met\n", connections, differing)
}

// showDifference shows a connection that is not as expected.
func showDifference(w io.Writer, st style, d testDifference) {
	var text strings.Builder
	showVerdicts(&text, st, []status.PolicyVerdict{d.Verdict})
	for line := range strings.Lines(text.String()) {
		fmt.Fprint(w, "        "+line)
	}
	if len(d.Missing) > 0 {
		fmt.Fprintf(w, "          not by %s\n", strings.Join(d.Missing, ", "))
	}
}

// junit returns a report in the form of JUnit.
func (r testReport) junit() (all []junitSuite) {
	for _, t := range r.Tests {
		s := junitSuite{name: t.Name}
		for _, e := range t.Connections {
			c := junitCase{class: t.Name, name: e.label()}
			if len(e.Differences) > 0 {
				var text strings.Builder
				for _, d := range e.Differences {
					showDifference(&text, style{}, d)
				}
				c.failure, c.text = fmt.Sprintf("connections that differ: %d", len(e.Differences)), text.String()
			}
			s.cases = append(s.cases, c)
		}
		all = append(all, s)
	}
	if len(r.NotUnderstood) > 0 {
		s := junitSuite{name: "policies"}
		for _, name := range r.NotUnderstood {
			s.cases = append(s.cases, junitCase{class: "policies", name: name, failure: "not understood"})
		}
		all = append(all, s)
	}
	return all
}
