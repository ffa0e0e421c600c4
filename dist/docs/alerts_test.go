package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// firsts are the first groups of all matches.
func firsts(r *regexp.Regexp, text string) (all []string) {
	for _, m := range r.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestRunbook: each alert has a section in the runbook that it leads to, and is fired in the rules' tests; there is no other section.
func TestRunbook(t *testing.T) {
	rules, tests, runbook := read(t, "dist/prometheus/selvage.rules.yml"), read(t, "dist/prometheus/selvage.rules.test.yml"), read(t, "Documentation/runbook.md")
	alerts := firsts(regexp.MustCompile(`(?m)^ *- alert: (\w+)$`), rules)
	links := firsts(regexp.MustCompile(`(?m)^ *runbook: "Documentation/runbook\.md#(\w+)"$`), rules)
	sections := firsts(regexp.MustCompile(`(?m)^## (Selvage\w+)$`), runbook)
	fired := firsts(regexp.MustCompile(`(?m)^ *alertname: (\w+)\n *exp_alerts:\n`), tests)
	if len(alerts) == 0 || len(links) != len(alerts) {
		t.Fatalf("%d alerts, %d links to the runbook", len(alerts), len(links))
	}
	for i, alert := range alerts {
		if links[i] != strings.ToLower(alert) || !slices.Contains(sections, alert) {
			t.Errorf("%s leads to #%s; the sections are %q", alert, links[i], sections)
		}
		if !slices.Contains(fired, alert) {
			t.Errorf("no test has %s fire", alert)
		}
	}
	for _, s := range sections {
		if !slices.Contains(alerts, s) {
			t.Errorf("the runbook has a section %s, and there is no such alert", s)
		}
	}
}

var metricName = regexp.MustCompile(`\bselvage_[a-z_]+[a-z]\b`)

// TestMetrics: each metric is described by its whole name, and each that is spoken of is there.
func TestMetrics(t *testing.T) {
	there := firsts(regexp.MustCompile(`(?m)^# TYPE (selvage_\w+) `), read(t, "network/node/api/testdata/metrics.txt"))
	described := metricName.FindAllString(read(t, "Documentation/running.md"), -1)
	for _, name := range there {
		if !slices.Contains(described, name) {
			t.Errorf("running.md does not describe %s", name)
		}
	}
	speaking := pages(t)
	speaking["the alert rules"] = read(t, "dist/prometheus/selvage.rules.yml")
	speaking["the dashboard"] = strings.ReplaceAll(read(t, "dist/prometheus/selvage.dashboard.json"), "_bucket{", "{")
	for page, text := range speaking {
		for _, name := range metricName.FindAllString(text, -1) {
			if !slices.Contains(there, name) {
				t.Errorf("%s: there is no metric %s", page, name)
			}
		}
	}
}
