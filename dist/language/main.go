// Command language checks the wording and the width of product code and documentation. It reads the files that git
// tracks in the working directory, prints what is wrong with counts by folder, and exits with 1 if there is anything.
//
// words.txt lists the words that are not used, each with its replacement. They are looked for in Markdown, and in the
// comments and strings of Go code: identifiers are not text. No line has more than 120 characters, but rows of Markdown
// tables, which cannot be wrapped, and lines without a space, such as a URL. A tab counts as one character.
//
// Product code is all Go code outside dist/ but tests and their data. The common misspellings are left to misspell; see make language.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/scanner"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxWidth is how many characters a line may have.
const maxWidth = 120

//go:embed words.txt
var words string

// rule is a word or phrase that is not used.
type rule struct {
	pattern     *regexp.Regexp
	replacement string
}

// finding is one thing that is wrong.
type finding struct {
	file string
	line int
	text string
}

func main() {
	findings, err := check()
	if err != nil {
		fmt.Fprintf(os.Stderr, "language: %v\n", err)
		os.Exit(1)
	}
	if len(findings) > 0 {
		report(os.Stdout, findings)
		os.Exit(1)
	}
}

func check() (findings []finding, err error) {
	rules, err := parseRules(words)
	if err != nil {
		return nil, err
	}
	files, err := exec.Command("git", "ls-files", "-z", "*.go", "*.md").Output()
	if err != nil {
		return nil, fmt.Errorf("list the files that git tracks: %w", err)
	}
	for file := range strings.SplitSeq(strings.TrimRight(string(files), "\x00"), "\x00") {
		isGo := strings.HasSuffix(file, ".go")
		if isGo && (strings.HasPrefix(file, "dist/") || strings.HasSuffix(file, "_test.go") || strings.Contains(file, "/testdata/")) {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		findings = append(findings, checkWidth(file, content)...)
		if isGo {
			content = texts(content)
		}
		findings = append(findings, checkWords(file, content, rules)...)
	}
	return findings, nil
}

func parseRules(text string) (rules []rule, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		expr, replacement, ok := strings.Cut(line, "\t")
		if !ok {
			return nil, fmt.Errorf("words.txt: %q has no tab, want an expression, a tab and its replacement", line)
		}
		pattern, err := regexp.Compile(`(?i)\b(` + expr + `)\b`)
		if err != nil {
			return nil, fmt.Errorf("words.txt: %w", err)
		}
		rules = append(rules, rule{pattern, replacement})
	}
	return rules, nil
}

// texts blanks all of a Go file but its comments and strings. Lines stay where they are.
func texts(source []byte) []byte {
	blank := slices.Repeat([]byte{' '}, len(source))
	for i, c := range source {
		if c == '\n' {
			blank[i] = c
		}
	}
	var s scanner.Scanner
	fset := token.NewFileSet()
	file := fset.AddFile("", fset.Base(), len(source))
	s.Init(file, source, nil, scanner.ScanComments)
	for {
		pos, tok, literal := s.Scan()
		switch tok {
		case token.EOF:
			return blank
		case token.COMMENT, token.STRING:
			copy(blank[file.Offset(pos):], literal)
		}
	}
}

func checkWords(file string, content []byte, rules []rule) (findings []finding) {
	n := 0
	for line := range bytes.Lines(content) {
		n++
		for _, r := range rules {
			for _, match := range r.pattern.FindAll(line, -1) {
				findings = append(findings, finding{file, n, fmt.Sprintf("%q, use: %s", match, r.replacement)})
			}
		}
	}
	return findings
}

func checkWidth(file string, content []byte) (findings []finding) {
	table := strings.HasSuffix(file, ".md")
	n := 0
	for line := range bytes.Lines(content) {
		n++
		line = bytes.TrimRight(line, "\n")
		width := utf8.RuneCount(line)
		if width <= maxWidth || table && bytes.HasPrefix(line, []byte("|")) || !bytes.ContainsRune(bytes.TrimSpace(line), ' ') {
			continue
		}
		findings = append(findings, finding{file, n, fmt.Sprintf("%d characters, at most %d", width, maxWidth)})
	}
	return findings
}

func report(w io.Writer, findings []finding) {
	count := map[string]int{}
	for _, f := range findings {
		fmt.Fprintf(w, "%s:%d: %s\n", f.file, f.line, f.text)
		count[path.Dir(f.file)]++
	}
	fmt.Fprintln(w)
	for _, folder := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "%5d  %s\n", count[folder], folder)
	}
	fmt.Fprintf(w, "%5d  in all\n", len(findings))
}
