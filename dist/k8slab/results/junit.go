package results

import (
	"encoding/xml"
	"fmt"
	"time"
)

// junitSuite is what is read of one suite in JUnit's XML.
type junitSuite struct {
	Cases []struct {
		Name    string  `xml:"name,attr"`
		Time    float64 `xml:"time,attr"` // seconds
		Failure *struct {
			Message string `xml:"message,attr"`
		} `xml:"failure"`
		Skipped *struct {
			Message string `xml:"message,attr"`
		} `xml:"skipped"`
	} `xml:"testcase"`
}

// JUnit reads the cases of one suite in JUnit's XML.
func JUnit(suite string, report []byte) (cases []Case, err error) {
	var r junitSuite
	if err := xml.Unmarshal(report, &r); err != nil {
		return nil, fmt.Errorf("read JUnit's report: %w", err)
	}
	for _, j := range r.Cases {
		c := Case{Suite: suite, Name: j.Name, Outcome: Passed, Took: time.Duration(j.Time * float64(time.Second))}
		switch {
		case j.Failure != nil:
			c.Outcome, c.Reason = Failed, j.Failure.Message
		case j.Skipped != nil:
			c.Outcome, c.Reason = NotRun, j.Skipped.Message
		}
		cases = append(cases, c)
	}
	return cases, nil
}
