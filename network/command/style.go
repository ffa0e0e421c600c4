package command

import (
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal returns the width of the terminal that w is, in columns.
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

// style is how text is made to stand out, and to fit.
type style struct {
	colour bool
	width  int // in columns; 0: as wide as it comes
}

// styleFor has colour on a terminal only, and not where that is not wanted (https://no-color.org). So that programs find a line where
// they look for it, lines are broken on a terminal only, too.
func styleFor(w io.Writer) style {
	width, ok := terminal(w)
	return style{ok && os.Getenv("NO_COLOR") == "", width}
}

func (s style) good(text string) string { return s.in("32", text) }
func (s style) bad(text string) string  { return s.in("31", text) }
func (s style) odd(text string) string  { return s.in("33", text) }
func (s style) bold(text string) string { return s.in("1", text) }

func (s style) in(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// escape is what colours are made of.
var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// columns is how wide a text is.
func columns(text string) int { return utf8.RuneCountInString(escape.ReplaceAllString(text, "")) }

// fold breaks a line between words so that it fits. What follows is indented.
func (s style) fold(line string, indent int) string {
	const narrowest = 20 // columns that are left for text; with less, a line is better left to the terminal
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

// gap is where to break a line: at the last blank that fits, else at the first, behind what is indented.
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
