package results

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The states of Ginkgo's types.SpecState, as its JSON report has them.
const (
	ginkgoPassed  = "passed"
	ginkgoPending = "pending"
	ginkgoSkipped = "skipped"
)

// ginkgoReport is what is read of Ginkgo's report, a list of types.Report.
type ginkgoReport []struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
		RunTime                 time.Duration
		Failure                 struct{ Message string }
	}
}

// Ginkgo reads the cases of a JSON report. Cases that the filters of the run left out are left out, and a setup or
// cleanup of the whole suite counts only if it failed.
func Ginkgo(suite string, report []byte) (cases []Case, err error) {
	var r ginkgoReport
	if err := json.Unmarshal(report, &r); err != nil {
		return nil, fmt.Errorf("read Ginkgo's report: %w", err)
	}
	for _, part := range r {
		for _, s := range part.SpecReports {
			c := Case{
				Suite: suite, Name: strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " "),
				Reason: s.Failure.Message, Took: s.RunTime,
			}
			isCase := s.LeafNodeType == "It"
			switch {
			case s.State == ginkgoPassed:
				c.Outcome = Passed
			case s.State == ginkgoSkipped && c.Reason == "":
				continue // a case that skips itself says why
			case s.State == ginkgoSkipped, s.State == ginkgoPending:
				c.Outcome = NotRun
			default:
				c.Outcome = Failed
			}
			if !isCase {
				c.Name = s.LeafNodeType
			}
			if isCase || c.Outcome == Failed {
				cases = append(cases, c)
			}
		}
	}
	return cases, nil
}
