package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// prompt reads commands from the terminal and executes them, until the lab ends or the user ends it.
func prompt(ctx context.Context, s *session, terminal stdio) error {
	restore, err := keyByKey(terminal.in)
	if err != nil {
		return err
	}
	defer restore()
	keys := newKeyboard()
	// Nothing can end a read from a terminal, so this goroutine is left to end with the process.
	go keys.listen(terminal.in)
	editor := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys, terminal.out}, "")
	editor.History = new(history)
	editor.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		completed, words := s.completeLine(ctx, line[:pos])
		if len(words) > 1 && completed == line[:pos] {
			io.WriteString(editor, inColumns(words, width(terminal.out)))
		}
		return completed + line[pos:], len(completed), true
	}
	for ctx.Err() == nil {
		editor.SetPrompt("lab " + s.here + "> ")
		editor.SetSize(width(terminal.out), 24)
		text, err := readLine(ctx, editor)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) { // Ctrl-D, or the terminal is gone
			s.down()
			return nil
		}
		s.execute(ctx, text, terminal, keys)
	}
	return nil
}

// readLine returns when a line is read, or ctx ends: the lab can be ended from another terminal.
func readLine(ctx context.Context, editor *term.Terminal) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1) // the goroutine can outlast this function
	go func() {
		line, err := editor.ReadLine()
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// execute executes a line of the prompt. Ctrl-C ends the command and nothing else.
func (s *session) execute(ctx context.Context, line string, terminal stdio, keys *keyboard) {
	args, err := splitLine(line)
	if err != nil {
		fmt.Fprintln(terminal.err, err)
		return
	}
	if len(args) > 0 && args[0] == "lab" {
		args = args[1:]
	}
	switch {
	case len(args) == 0:
		return
	case len(args) == 1 && (args[0] == "exit" || args[0] == "quit"):
		s.down()
		return
	}
	if runsProgram(args) && s.startsProgram(args) {
		_, err := withTerminal(terminal.out, keys.give, func(program *os.File) int {
			return s.run(ctx, args, stdio{program, program, program, true})
		})
		if err != nil {
			fmt.Fprintln(terminal.err, err)
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys.onInterrupt(func() {
		fmt.Fprintln(terminal.out, "^C")
		cancel()
	})
	defer keys.onInterrupt(nil)
	s.run(ctx, args, terminal)
}

// startsProgram reports whether a line that can start a program is more than the name of a node.
func (s *session) startsProgram(args []string) bool {
	_, rest, err := s.whichNode(args)
	return err == nil && len(rest) > 0
}

// completeLine completes the last word of a line, as far as all possible words agree.
func (s *session) completeLine(ctx context.Context, line string) (completed string, words []string) {
	typed, err := splitLine(line)
	if err != nil {
		return line, nil // in a quotation
	}
	if line == "" || strings.HasSuffix(line, " ") {
		typed = append(typed, "")
	}
	if typed[0] == "lab" && len(typed) > 1 {
		typed = typed[1:]
	}
	begun := typed[len(typed)-1]
	words = s.complete(ctx, typed)
	if len(words) == 0 || !strings.HasSuffix(line, begun) {
		return line, nil
	}
	completed = strings.TrimSuffix(line, begun) + commonPrefix(words)
	if len(words) == 1 {
		completed += " "
	}
	return completed, words
}

// history has the lines that were typed, the newest first.
type history struct{ lines []string }

// longestHistory is how many lines are kept.
const longestHistory = 500

// Add implements [term.History]. Empty lines and repetitions are left out.
func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[0] == line {
		return
	}
	h.lines = append([]string{line}, h.lines[:min(len(h.lines), longestHistory-1)]...)
}

// Len implements [term.History].
func (h *history) Len() int { return len(h.lines) }

// At implements [term.History].
func (h *history) At(i int) string { return h.lines[i] }

// width is that of the terminal, in columns.
func width(terminal *os.File) int {
	columns, _, err := term.GetSize(int(terminal.Fd()))
	if err != nil || columns <= 0 {
		return lineWidth
	}
	return columns
}

// splitLine parts a line at white space, except in quotes.
func splitLine(line string) ([]string, error) {
	var args []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		var arg strings.Builder
		for rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			if quote := rest[0]; quote == '"' || quote == '\'' {
				inner, after, closed := strings.Cut(rest[1:], string(quote))
				if !closed {
					return nil, fmt.Errorf("a closing %c is missing", quote)
				}
				arg.WriteString(inner)
				rest = after
				continue
			}
			arg.WriteByte(rest[0])
			rest = rest[1:]
		}
		args = append(args, arg.String())
	}
	return args, nil
}
