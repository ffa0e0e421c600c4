// Package command implements selvaged's subcommands: show the daemon's state (status, peers, explain), diagnose the
// node (doctor), show, check and set the network config (config), install the CNI plugin (install-cni), release a
// lease (release), and remove everything that selvage created on a node (cleanup). main assembles them.
//
// A command that shows state queries the daemon over its socket, and a pure function formats the answer as text.
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
	ExitDegraded   = 2 // or a bad result of another command
	ExitStarting   = 3
	ExitNotRunning = 4
)

// Exit makes the process exit with a code, without another message.
type Exit struct{ Code int }

// Error implements error.
func (e Exit) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// answerTimeout is how long the daemon may take to answer.
const answerTimeout = 10 * time.Second

// query has the flags of all commands that query the daemon.
type query struct {
	socket string
	output string
	now    func() time.Time
}

// flags adds the flags to a command.
func (q *query) flags(c *cobra.Command) {
	c.Flags().StringVar(&q.socket, "socket", status.DefaultSocket, "path of the daemon's socket")
	q.outputFlag(c)
}

// outputFlag adds the flag for the output format.
func (q *query) outputFlag(c *cobra.Command) {
	c.Flags().StringVarP(&q.output, "output", "o", "table", "output format: table or json")
	CompleteFlag(c, "output", "table", "json")
	q.now = time.Now
}

// check validates the flags.
func (q *query) check() error {
	if q.output != "table" && q.output != "json" {
		return fmt.Errorf("--output: %q, want table or json", q.output)
	}
	return nil
}

// show writes an answer as JSON, or by table.
func show[T any](w io.Writer, q query, answer T, table func(io.Writer, T)) error {
	if q.output == "table" {
		table(w, answer)
		return nil
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(answer)
}

// fetch queries the daemon.
func fetch[T any](ctx context.Context, q query, get func(context.Context, *status.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return get(ctx, status.NewClient(q.socket))
}

// ask queries the daemon, and shows the answer as JSON or by table.
func ask[T any](
	cmd *cobra.Command, q query, get func(context.Context, *status.Client) (T, error), table func(io.Writer, T),
) (answer T, err error) {
	if err := q.check(); err != nil {
		return answer, err
	}
	if answer, err = fetch(cmd.Context(), q, get); err != nil {
		return answer, notRunning(cmd, err)
	}
	return answer, show(cmd.OutOrStdout(), q, answer, table)
}

// notRunning prints that the daemon does not run, if that is the error, and returns the exit code for it. Other errors
// it returns as they are.
func notRunning(cmd *cobra.Command, err error) error {
	if !errors.Is(err, status.ErrNotRunning) {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), err)
	return Exit{ExitNotRunning}
}
