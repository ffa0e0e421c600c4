package command

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// Explain shows how this node reaches an address.
func Explain() *cobra.Command {
	var q query
	c := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Show how this node reaches an address, step by step",
		Long: `explain follows a packet to an address: the lease that holds the address, the route, the neighbour, the FDB
entry, the device, and the path to the other node. Each step is marked: ok (desired, and in sync), missing (desired,
and missing or different), foreign (not selvage's), - (none of these).

Exit codes: 0 the path is in sync, 2 it is not, 4 the daemon does not run, 1 any other error.`,
		Example: `  selvaged explain 10.5.29.7
  selvaged explain fd00:5:0:1d::7 -o json`,
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: completePeers(addressesOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := netip.ParseAddr(args[0])
			if err != nil || a.Zone() != "" {
				return fmt.Errorf("%q is not an IP address such as 10.5.29.7", args[0])
			}
			get := func(ctx context.Context, c *status.Client) (status.Explanation, error) { return c.Explain(ctx, a) }
			e, err := ask(cmd, q, get, func(w io.Writer, e status.Explanation) { showExplanation(w, styleFor(w), e) })
			if err == nil && !e.OK {
				return Exit{ExitDegraded}
			}
			return err
		},
	}
	q.flags(c)
	return c
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
