package connection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
)

// The type of a document with expectations.
const (
	TestVersion = "selvage.io/v1"
	TestKind    = "PolicyTest"
)

// Test is a list of connections, and what policies are expected to decide about them.
type Test struct {
	Place       string // "file:line"
	Name        string
	Connections []Expectation
}

// Expectation is what policies are expected to decide about some connections: from each of its sources to each of its
// destinations, by each of its ports.
type Expectation struct {
	Name  string   // may be empty
	From  []string // see [World.Ends]
	To    []string
	Ports []Port
	Allow bool
	By    []string // policies that have to decide it: namespace/name, or the name of a cluster policy
}

// ErrTest is returned for a document that is not as [ParseTest] says.
var ErrTest = errors.New("not a valid " + TestKind)

// texts is a text or a number, or a list of them.
type texts []string

// UnmarshalJSON implements [json.Unmarshaler].
func (t *texts) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	list := []json.RawMessage{data}
	if data[0] == '[' {
		if err := json.Unmarshal(data, &list); err != nil {
			return err
		}
	}
	for _, raw := range list {
		var text string
		var number json.Number
		switch {
		case json.Unmarshal(raw, &text) == nil:
			*t = append(*t, text)
		case json.Unmarshal(raw, &number) == nil:
			*t = append(*t, number.String())
		default:
			return fmt.Errorf("%s: want a text, or a list of texts", raw)
		}
	}
	return nil
}

// testObject is a test as a document has it.
type testObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Connections []struct {
		Name   string `json:"name"`
		From   texts  `json:"from"`
		To     texts  `json:"to"`
		Ports  texts  `json:"ports"`
		Expect string `json:"expect"`
		By     texts  `json:"by"`
	} `json:"connections"`
}

// ParseTest reads a test from the JSON of a document:
//
//	{"apiVersion": "selvage.io/v1", "kind": "PolicyTest", "metadata": {"name": "shop"},
//	 "connections": [{"name": "…", "from": "shop/web", "to": ["shop/db"], "ports": [5432, "53/UDP"],
//	                  "expect": "allow", "by": "shop/db"}]}
//
// from and to are as [World.Ends] takes them, and each of ports as [ParsePort] does; without ports, a connection is
// about any protocol and port. expect is allow or deny. name, ports and by can be left out. place is where the document
// is, for errors.
func ParseTest(place string, data []byte) (Test, error) {
	var o testObject
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		return Test{}, fmt.Errorf("%s: %w: %w", place, ErrTest, err)
	}
	failed := func(format string, args ...any) (Test, error) {
		return Test{}, fmt.Errorf("%s: %w: %w", place, ErrTest, fmt.Errorf(format, args...))
	}
	if o.APIVersion != TestVersion || o.Kind != TestKind {
		return failed("apiVersion %s and kind %s, want %s and %s", o.APIVersion, o.Kind, TestVersion, TestKind)
	}
	if len(o.Connections) == 0 {
		return failed("connections is missing or empty")
	}
	t := Test{Place: place, Name: o.Metadata.Name}
	for i, c := range o.Connections {
		at := fmt.Sprintf("connections[%d]", i)
		if len(c.From) == 0 || len(c.To) == 0 {
			return failed("%s: from or to is missing", at)
		}
		if c.Expect != "allow" && c.Expect != "deny" {
			return failed("%s.expect: %q, want allow or deny", at, c.Expect)
		}
		e := Expectation{Name: c.Name, From: c.From, To: c.To, Allow: c.Expect == "allow", By: c.By}
		if len(c.Ports) == 0 {
			e.Ports = []Port{{}}
		}
		for _, text := range c.Ports {
			p, err := ParsePort(text)
			if err != nil || text == "" {
				return failed("%s.ports: %w", at, err)
			}
			e.Ports = append(e.Ports, p)
		}
		t.Connections = append(t.Connections, e)
	}
	return t, nil
}

// String returns the expectation in a line.
func (e Expectation) String() string {
	var ports []string
	for _, p := range e.Ports {
		ports = append(ports, p.String())
	}
	text := fmt.Sprintf("%s -> %s %s: %s",
		strings.Join(e.From, ","), strings.Join(e.To, ","), strings.Join(ports, ","), e.Want())
	if len(e.By) > 0 {
		text += " by " + strings.Join(e.By, ",")
	}
	return text
}

// Want returns "allow" or "deny".
func (e Expectation) Want() string {
	if e.Allow {
		return "allow"
	}
	return "deny"
}

// Result is what came of an expectation.
type Result struct {
	Expectation Expectation
	Checked     int // number of connections, by pods, family and port
	Differences []Difference
}

// Difference is a connection about which policies decide something else.
type Difference struct {
	From, To End
	Answer   Answer   // only the ranges that differ
	Missing  []string // the verdict is as expected, but not by these policies
}

// Run compares the expectations of a test with what policies decide. It is an error if an expectation names what does
// not exist.
func (w World) Run(t Test) (all []Result, err error) {
	for i, e := range t.Connections {
		r, err := w.run(e)
		if err != nil {
			return nil, fmt.Errorf("%s: connections[%d]: %w", t.Place, i, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func (w World) run(e Expectation) (r Result, err error) {
	r.Expectation = e
	from, err := w.Ends(e.From)
	if err != nil {
		return r, fmt.Errorf("from: %w", err)
	}
	to, err := w.Ends(e.To)
	if err != nil {
		return r, fmt.Errorf("to: %w", err)
	}
	for _, source := range from {
		for _, destination := range to {
			if source == destination && len(from)+len(to) > 2 {
				continue // a pattern matches both ends
			}
			for _, port := range e.Ports {
				answers, err := w.Ask(source, destination, port)
				if err != nil {
					return r, err
				}
				for _, a := range answers {
					r.Checked++
					r.Differences = append(r.Differences, e.compare(source, destination, a)...)
				}
			}
		}
	}
	if r.Checked == 0 {
		return r, errors.New("from and to name the same pod only")
	}
	return r, nil
}

// compare returns in what an answer differs from the expectation.
func (e Expectation) compare(from, to End, a Answer) (all []Difference) {
	wrong := Answer{Source: a.Source, Destination: a.Destination}
	for _, r := range a.Ranges {
		if r.Allowed() != e.Allow {
			wrong.Ranges = append(wrong.Ranges, r)
			continue
		}
		var missing []string
		for _, name := range e.By {
			if !decided(r, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			other := Answer{Source: a.Source, Destination: a.Destination, Ranges: []Range{r}}
			all = append(all, Difference{From: from, To: to, Answer: other, Missing: missing})
		}
	}
	if len(wrong.Ranges) > 0 {
		all = append(all, Difference{From: from, To: to, Answer: wrong})
	}
	return all
}

// decided reports whether a policy has a part in the verdict: one of its rules allows or denies the connection, or it
// isolates a pod whose policies do not allow the connection.
func decided(r Range, name string) bool {
	return slices.ContainsFunc(r.Verdicts[:], func(v policy.Verdict) bool {
		if v.Allowed != r.Allowed() {
			return false // one end would allow what the other one denies
		}
		return v.Policy == name || !v.Allowed && slices.Contains(v.Isolated, name)
	})
}
