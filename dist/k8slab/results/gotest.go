package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// event is one of test2json's; see go doc test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64 // seconds
}

// GoTest reads the cases from a stream of test2json's events: the tests without subtests. seen, if it is not nil, is
// called for each case as it ends. A test that has begun and did not end has failed, and so has one with subtests that
// failed while none of these did.
func GoTest(suite string, events io.Reader, seen func(Case)) (cases []Case, err error) {
	var names []string // in the order of their beginnings
	ended := map[string]*Case{}
	output := map[string]*bytes.Buffer{}
	parent, failedBelow := map[string]bool{}, map[string]bool{}
	for d := json.NewDecoder(events); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read the events of test2json: %w", err)
		}
		if e.Test == "" {
			continue
		}
		switch e.Action {
		case "run":
			names, output[e.Test] = append(names, e.Test), &bytes.Buffer{}
			for _, p := range above(e.Test) {
				parent[p] = true
			}
		case "output":
			if b := output[e.Test]; b != nil {
				b.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			took := time.Duration(e.Elapsed * float64(time.Second))
			c := Case{Suite: suite, Name: e.Test, Outcome: Passed, Took: took}
			if e.Action == "fail" {
				c.Outcome, c.Reason = Failed, reason(output[e.Test])
				for _, p := range above(e.Test) {
					failedBelow[p] = true
				}
			} else if e.Action == "skip" {
				c.Outcome, c.Reason = NotRun, reason(output[e.Test])
			}
			ended[e.Test] = &c
			if seen != nil && !parent[e.Test] {
				seen(c)
			}
		}
	}
	for _, name := range names {
		c := ended[name]
		if c == nil {
			c = &Case{Suite: suite, Name: name, Outcome: Failed, Reason: "it did not end"}
		}
		if !parent[name] || c.Outcome == Failed && !failedBelow[name] {
			cases = append(cases, *c)
		}
	}
	return cases, nil
}

// above lists the tests that a subtest is part of.
func above(name string) (list []string) {
	for i, r := range name {
		if r == '/' {
			list = append(list, name[:i])
		}
	}
	return list
}

// reason is what a test printed, without the lines that the testing package adds at its beginning and end.
func reason(output *bytes.Buffer) string {
	if output == nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(output.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
