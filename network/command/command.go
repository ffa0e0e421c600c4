// Package command holds what selvaged does besides being the daemon: tell how the daemon is (status, peers, explain), put the
// CNI plugin in place (install-cni), give a lease back (release), and take all that is selvage's off a node (cleanup). main
// puts the commands together.
//
// Those that show something are a question to the daemon's socket and a pure function that turns the answer into text.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/node/status"
)

// Exit codes, for scripts.
const (
	ExitDegraded   = 2
	ExitStarting   = 3
	ExitNotRunning = 4
)

// Exit is an error that was shown already, or is none, and has the process exit with a code.
type Exit struct{ Code int }

// Error implements error.
func (e Exit) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// patience is how long the daemon may take to answer.
const patience = 10 * time.Second

// question is what all commands that ask the daemon share.
type question struct {
	socket string
	output string
	now    func() time.Time
}

// flags adds the flags of a command that asks the daemon. Formats are names of output formats, the default first.
func (q *question) flags(c *cobra.Command) {
	c.Flags().StringVar(&q.socket, "socket", status.DefaultSocket, "the daemon's socket")
	c.Flags().StringVarP(&q.output, "output", "o", "table", "table or json")
	CompleteFlag(c, "output", "table", "json")
	q.now = time.Now
}

// ask asks, and shows the answer as JSON or by show.
func ask[T any](cmd *cobra.Command, q question, get func(context.Context, *status.Client) (T, error), show func(io.Writer, T)) (answer T, err error) {
	if q.output != "table" && q.output != "json" {
		return answer, fmt.Errorf("--output: %q, want table or json", q.output)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	answer, err = get(ctx, status.NewClient(q.socket))
	if errors.Is(err, status.ErrNotRunning) {
		fmt.Fprintf(cmd.ErrOrStderr(), "selvaged: %v\n", err)
		return answer, Exit{ExitNotRunning}
	}
	if err != nil {
		return answer, err
	}
	if q.output == "json" {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		return answer, encoder.Encode(answer)
	}
	show(cmd.OutOrStdout(), answer)
	return answer, nil
}

// terminal reports whether w is one, and its width in characters.
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

// style is how things are made to stand out.
type style struct{ colour bool }

// styleFor has colour on a terminal only, and not where that is not wanted (https://no-color.org).
func styleFor(w io.Writer) style {
	_, ok := terminal(w)
	return style{ok && os.Getenv("NO_COLOR") == ""}
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
