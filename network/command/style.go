package command

import (
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal returns the width of the terminal w, in columns. ok is false if w is no terminal.
func terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}

// style colours and folds text for a terminal.
type style struct {
	colour bool
	width  int // in columns; 0: unlimited
}

// styleFor returns the style for w. Text is coloured and folded on a terminal only, since a program that reads it
// expects one line each. NO_COLOR turns colours off (https://no-color.org).
func styleFor(w io.Writer) style {
	width, ok := terminal(w)
	return style{ok && os.Getenv("NO_COLOR") == "", width}
}

func (s style) good(text string) string { return s.in("32", text) }
func (s style) bad(text string) string  { return s.in("31", text) }
func (s style) odd(text string) string  { return s.in("33", text) }

// plain makes a text as long as a coloured one, for the columns of a table.
func (s style) plain(text string) string { return s.in("39", text) }
func (s style) bold(text string) string  { return s.in("1", text) }

func (s style) in(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// escape matches the escape sequences of colours.
var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// columns returns the width of a text.
func columns(text string) int { return utf8.RuneCountInString(escape.ReplaceAllString(text, "")) }

// fold breaks a line between words so that it fits. The rest is indented.
func (s style) fold(line string, indent int) string {
	const narrowest = 20 // columns for text; with less, the terminal wraps the line
	if s.width < indent+narrowest {
		return line
	}
	var done strings.Builder
	for columns(line) > s.width {
		at := s.gap(line, indent)
		if at < 0 {
			break
		}
		done.WriteString(strings.TrimRight(line[:at], " ") + "\n")
		line = strings.Repeat(" ", indent) + strings.TrimLeft(line[at:], " ")
	}
	return done.String() + line
}

// gap returns where to break a line: at the last blank that fits, else at the first one after the indent.
func (s style) gap(line string, indent int) (at int) {
	at = -1
	for i := range line {
		if line[i] != ' ' {
			continue
		}
		switch column := columns(line[:i]); {
		case column <= indent:
		case column <= s.width, at < 0:
			at = i
		default:
			return at
		}
	}
	return at
}
