// Package parsing has every way of parsing a text that the test has to find: each on a line that ends in "want".
package parsing

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

func parse(p status.Problem, u status.Uplink, err error) (found bool) {
	found = p.Text == "no lease"                                         // want
	found = "no lease" != p.Text                                         // want
	found = u.Why < p.Text                                               // want
	found = string(p.Text) == "x"                                        // want
	found = strings.Contains(fmt.Sprint(p.Text), "no lease")             // want
	found = strings.HasPrefix(fmt.Sprintf("%s: %s", p.Topic, p.Text), x) // want
	found = regexp.MustCompile("x").MatchString(fmt.Sprint(p.Text))      // want
	found = slices.Contains(u.Not, "eth1 is down")                       // want
	found = p.Text[0] == 'x'                                             // want
	found = p.Text[:2] != ""                                             // want
	found = strings.Contains(err.Error(), "no such")                     // want
	found = err.Error() == "no such peer"                                // want
	switch p.Text {                                                      // want
	case "no lease":
	}
	switch err.Error() { // want
	case "no such peer":
	}
	for range p.Text { // want
	}
	_ = []byte(p.Text)           // want
	_ = map[status.Text]string{} // want
	return found
}

const x = "x"

func show(p status.Problem, u status.Uplink, err error) (lines []string) {
	if p.Text != "" && len(u.Not) > 0 {
		lines = append(lines, fmt.Sprintf("%s: %s (%v)", p.Topic, p.Text, err))
	}
	for _, not := range slices.Clone(u.Not) {
		lines = append(lines, fmt.Sprint("not ", not))
	}
	p.Text += " and " + u.Why
	return append(lines, strings.Join(lines, ", "))
}
