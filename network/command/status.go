package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// Status shows the state of the daemon. version is this program's; a daemon that was not restarted after an upgrade has
// another one.
func Status(version string) *cobra.Command {
	var (
		q     query
		watch bool
	)
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether this node is ready, and why not",
		Long: `status shows the state of the daemon on this node, problems first.

Exit codes: 0 ready, 2 degraded, 3 not ready yet, 4 the daemon does not run, 1 any other error.`,
		Example: `  selvaged status
  selvaged status --watch
  selvaged status -o json | jq .lease.subnets`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st := styleFor(cmd.OutOrStdout())
			table := func(w io.Writer, s status.Status) { showStatus(w, st, s, version, q.now()) }
			get := func(ctx context.Context, c *status.Client) (status.Status, error) { return c.Status(ctx) }
			if watch {
				return watchStatus(cmd, q, get, table)
			}
			s, err := ask(cmd, q, get, table)
			if err != nil {
				return err
			}
			return exitOf(s.State)
		},
	}
	q.flags(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "refresh every second until interrupted")
	return c
}

func exitOf(s status.State) error {
	switch s {
	case status.Ready:
		return nil
	case status.Degraded:
		return Exit{ExitDegraded}
	default:
		return Exit{ExitStarting}
	}
}

// watchStatus refreshes the status until it is interrupted. It waits for a daemon that restarts or does not answer.
func watchStatus(
	cmd *cobra.Command, q query, get func(context.Context, *status.Client) (status.Status, error),
	table func(io.Writer, status.Status),
) error {
	if err := q.check(); err != nil {
		return err
	}
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	_, screen := terminal(out)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var text bytes.Buffer // so that a screen does not flicker
		s, err := fetch(ctx, q, get)
		if err == nil {
			err = show(&text, q, s, table)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, fs.ErrPermission):
			return err
		case err != nil && screen:
			fmt.Fprintln(&text, err)
		case err != nil:
			fmt.Fprintln(cmd.ErrOrStderr(), err)
		}
		if screen {
			fmt.Fprint(out, "\x1b[H\x1b[2J") // from the top of an empty screen
		}
		if _, err := text.WriteTo(out); err != nil {
			return err // the reader is gone
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
