package main

import (
	"slices"
	"strings"
	"testing"
)

// TestWords: words are found in comments and strings of Go code, with their lines, and not in identifiers.
func TestWords(t *testing.T) {
	rules, err := parseRules(words)
	if err != nil {
		t.Fatal(err)
	}
	const source = "package p\n\nvar nobody = \"let in\"\n\n/* one\nSomebody */\nfunc wanted() {} // it is anew, renewed\n" +
		"type t struct {\n\tnobody int `json:\"nobody\"`\n}\n"
	var got []string
	for _, f := range checkWords("p.go", texts([]byte(source)), rules) {
		word, _, _ := strings.Cut(f.text, ",")
		got = append(got, word)
		if want := strings.Count(source[:strings.Index(source, strings.Trim(word, `"`))], "\n") + 1; f.line != want {
			t.Errorf("%s is on line %d, want %d", word, f.line, want)
		}
	}
	if want := []string{`"let in"`, `"Somebody"`, `"anew"`}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if _, err := parseRules("a b c"); err == nil {
		t.Error("a rule without a tab is accepted")
	}
}

// TestWidth: tables and lines without a space may be wide, as may fenced code blocks, to their end and not beyond.
func TestWidth(t *testing.T) {
	wide := strings.Repeat("wörd ", 24) // 120 characters, 144 bytes
	text := []byte(wide + "\n" + wide + "x\n| " + wide + "|\n" + strings.Repeat("x", 121) + "\n")
	text = append(text, "```sh\n"+wide+"x\n```\n"+wide+"x\n````\n```\n"+wide+"x\n````\n"+wide+"x\n"...)
	for file, want := range map[string][]int{"a.md": {2, 8, 13}, "a.go": {2, 3, 6, 8, 11, 13}} {
		var got []int
		for _, f := range checkWidth(file, text) {
			got = append(got, f.line)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: too wide are %v, want %v", file, got, want)
		}
	}
}
