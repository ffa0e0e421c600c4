package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// Explain shows how this node reaches an address.
func Explain() *cobra.Command {
	var q query
	c := &cobra.Command{
		Use:   "explain ADDRESS|NAME",
		Short: "Show how this node reaches an address, step by step",
		Long: `explain follows a packet to an address: the lease that holds the address, the route, the neighbour, the
FDB entry, the device, and the path to the other node. Each step is marked: ok (desired, and in sync), missing (desired,
and missing or different), foreign (not selvage's), - (none of these).

NAME is that of a node, for the gateway of its pods, or of a pod on this node: its container ID, its Kubernetes name, or
namespace/name, as the container runtime stored them in ` + resultsDir + `.
A name with an address of each family is explained for both.

Exit codes: 0 the path is in sync, 2 it is not or no host has the address, 4 the daemon does not run,
1 any other error.`,
		Example: `  selvaged explain 10.5.29.7
  selvaged explain fd00:5:0:1d::7 -o json
  selvaged explain node7`,
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: completePeers(namesAndAddressesOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := q.check(); err != nil {
				return err
			}
			get := func(ctx context.Context, c *status.Client) ([]target, error) { return targets(ctx, c, args[0]) }
			all, err := fetch(cmd.Context(), q, get)
			if errors.Is(err, status.ErrNotRunning) {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return Exit{ExitNotRunning}
			}
			if err != nil {
				return err
			}
			return explainAll(cmd, q, all)
		},
	}
	q.flags(c)
	return c
}

// explainAll explains one address after the other. The error is the exit code of the worst.
func explainAll(cmd *cobra.Command, q query, all []target) (worst error) {
	for _, t := range all {
		get := func(ctx context.Context, c *status.Client) (status.Explanation, error) {
			return c.Explain(ctx, t.address)
		}
		e, err := ask(cmd, q, get, func(w io.Writer, e status.Explanation) {
			if t.origin != "" {
				fmt.Fprintln(w, t)
			}
			showExplanation(w, styleFor(w), e)
		})
		if err != nil {
			return err
		}
		if !e.OK {
			worst = Exit{ExitDegraded}
		}
	}
	return worst
}

func showExplanation(w io.Writer, st style, e status.Explanation) {
	verdict := fmt.Sprint(e.Verdict)
	if e.OK {
		verdict = st.good(verdict)
	} else {
		verdict = st.bad(verdict)
	}
	fmt.Fprintln(w, verdict)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		note := "\n"
		if s.Note != "" {
			note = fmt.Sprintf("\t# %s\n", s.Note)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s%s", s.Kind, s.Mark, s.Text, note)
	}
	_ = t.Flush() // a terminal, or a pipe whose reader is gone
}
