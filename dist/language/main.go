// Command language checks the wording and the line width of product code and documentation. It reads the files that git
// tracks in the working directory, prints its findings and their number in each folder, and exits with 1 if there are
// any.
//
// words.txt lists words that the project does not use, each with its replacement. The command searches for them in
// Markdown, and in the comments and strings of Go code. Identifiers and struct tags are not searched: a name in a format
// cannot change.
//
// A line has at most 120 characters; a tab counts as one. Lines that cannot be wrapped are exempt: rows of Markdown tables,
// fenced code blocks of Markdown, which hold program output and commands verbatim (dist/docs can check the commands), and
// lines without a space, such as a URL.
//
// Product code is all Go code outside dist/, except tests and their data. misspell checks for common misspellings; see
// make language.
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

// rule is a word or phrase that the project does not use.
type rule struct {
	pattern     *regexp.Regexp
	replacement string
}

// finding is a use of such a word, or a line that is too long.
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
		test := strings.HasSuffix(file, "_test.go") || strings.Contains(file, "/testdata/")
		if isGo && (test || strings.HasPrefix(file, "dist/")) {
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

// texts replaces everything in a Go file by spaces, except comments, strings and line ends. A struct tag is no text.
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
			if !strings.HasPrefix(literal, "`json:") {
				copy(blank[file.Offset(pos):], literal)
			}
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
	markdown := strings.HasSuffix(file, ".md")
	fence := "" // of the code block that the line is in
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimRight(line, "\n")
		if markdown {
			inBlock := fence != ""
			if fence = nextFence(fence, line); inBlock || fence != "" || strings.HasPrefix(line, "|") {
				continue
			}
		}
		width := utf8.RuneCountInString(line)
		if width <= maxWidth || !strings.Contains(strings.TrimSpace(line), " ") {
			continue
		}
		findings = append(findings, finding{file, n, fmt.Sprintf("%d characters, at most %d", width, maxWidth)})
	}
	return findings
}

// nextFence returns the fence of the code block that a line of Markdown opens or continues, and "" outside of blocks.
// fence is that of the line before. See https://spec.commonmark.org/0.31.2/#fenced-code-blocks.
func nextFence(fence, line string) string {
	line = strings.TrimSpace(line)
	if fence != "" {
		if strings.HasPrefix(line, fence) && strings.Trim(line, fence[:1]) == "" {
			return ""
		}
		return fence
	}
	for _, mark := range []string{"`", "~"} {
		info := strings.TrimLeft(line, mark)
		if n := len(line) - len(info); n >= 3 && !strings.Contains(info, "`") {
			return line[:n]
		}
	}
	return ""
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
