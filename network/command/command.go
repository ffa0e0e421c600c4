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
	"time"

	"github.com/spf13/cobra"

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

// check looks at the flags.
func (q *question) check() error {
	if q.output != "table" && q.output != "json" {
		return fmt.Errorf("--output: %q, want table or json", q.output)
	}
	return nil
}

// show writes an answer as JSON, or by table.
func show[T any](w io.Writer, q question, answer T, table func(io.Writer, T)) error {
	if q.output == "table" {
		table(w, answer)
		return nil
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(answer)
}

// fetch asks the daemon.
func fetch[T any](ctx context.Context, q question, get func(context.Context, *status.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return get(ctx, status.NewClient(q.socket))
}

// ask asks the daemon, and shows the answer as JSON or by table.
func ask[T any](cmd *cobra.Command, q question, get func(context.Context, *status.Client) (T, error), table func(io.Writer, T)) (answer T, err error) {
	if err := q.check(); err != nil {
		return answer, err
	}
	answer, err = fetch(cmd.Context(), q, get)
	if errors.Is(err, status.ErrNotRunning) {
		fmt.Fprintln(cmd.ErrOrStderr(), err)
		return answer, Exit{ExitNotRunning}
	}
	if err != nil {
		return answer, err
	}
	return answer, show(cmd.OutOrStdout(), q, answer, table)
}
