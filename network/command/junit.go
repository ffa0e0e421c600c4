package command

import (
	"fmt"
	"html"
	"io"
	"strings"
	"time"
)

// junitSuite is a suite of tests in the form of JUnit, XML that CI systems read:
// https://github.com/testmoapp/junitxml.
type junitSuite struct {
	name  string
	took  time.Duration // 0: not known
	cases []junitCase
}

// junitCase is one test. It failed if failure is not empty, and was not run if skipped is not empty. The lines of text
// say more about the failure.
type junitCase struct {
	class, name, failure, text, skipped string
	took                                time.Duration // 0: not known
}

// writeJUnit writes suites.
func writeJUnit(w io.Writer, suites []junitSuite) {
	fmt.Fprintln(w, `<?xml version="1.0" encoding="UTF-8"?>`)
	fmt.Fprintln(w, "<testsuites>")
	for _, s := range suites {
		failures, skipped := 0, 0
		for _, c := range s.cases {
			if c.failure != "" {
				failures++
			}
			if c.skipped != "" {
				skipped++
			}
		}
		fmt.Fprintf(w, `<testsuite name=%s tests="%d" failures="%d"`, attribute(s.name), len(s.cases), failures)
		if skipped > 0 {
			fmt.Fprintf(w, ` skipped="%d"`, skipped)
		}
		fmt.Fprintf(w, "%s>\n", timeAttribute(s.took))
		for _, c := range s.cases {
			fmt.Fprintf(w, "<testcase classname=%s name=%s%s>",
				attribute(c.class), attribute(c.name), timeAttribute(c.took))
			switch {
			case c.failure != "" && c.text == "":
				fmt.Fprintf(w, "<failure message=%s/>", attribute(c.failure))
			case c.failure != "":
				fmt.Fprintf(w, "<failure message=%s>%s</failure>", attribute(c.failure), xmlText(c.text))
			case c.skipped != "":
				fmt.Fprintf(w, "<skipped message=%s/>", attribute(c.skipped))
			}
			fmt.Fprintln(w, "</testcase>")
		}
		fmt.Fprintln(w, "</testsuite>")
	}
	fmt.Fprintln(w, "</testsuites>")
}

// timeAttribute returns the attribute for a duration, which JUnit has in seconds; "" if it is not known.
func timeAttribute(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(` time="%.3f"`, d.Seconds())
}

// attribute returns a value in quotes for an attribute of XML.
func attribute(s string) string { return `"` + xmlText(s) + `"` }

// xmlText escapes a text for XML, which has no way to write most control characters.
func xmlText(s string) string {
	printable := func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}
	return html.EscapeString(strings.Map(printable, strings.ToValidUTF8(s, "?")))
}
