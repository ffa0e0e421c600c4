package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// Peers lists the other nodes.
func Peers() *cobra.Command {
	var (
		q   question
		bad bool
	)
	c := &cobra.Command{
		Use:   "peers",
		Short: "List the other nodes, and whether they can be reached",
		Long: `peers shows a line for each other node's lease: its subnets, the address that packets for it are sent to, by which
device, and whether the kernel holds all that takes. A lease that is not let in is shown with the reason.`,
		Example: `  selvaged peers
  selvaged peers --bad`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			get := func(ctx context.Context, c *status.Client) ([]status.Peer, error) {
				all, err := c.Peers(ctx)
				if !bad {
					return all, err
				}
				some := []status.Peer{}
				for _, p := range all {
					if p.State != status.Programmed {
						some = append(some, p)
					}
				}
				return some, err
			}
			_, err := ask(cmd, q, get, func(w io.Writer, p []status.Peer) { showPeers(w, p, q.now()) })
			return err
		},
	}
	q.flags(c)
	c.Flags().BoolVar(&bad, "bad", false, "only those that are not programmed")
	return c
}

// showPeers writes a table: the state is last, as the reason can be long.
func showPeers(w io.Writer, peers []status.Peer, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSUBNETS\tPUBLIC IP\tPATH\tSTATE")
	for _, p := range peers {
		state := string(p.State)
		switch {
		case p.State == status.Grace:
			state += fmt.Sprintf(" for %s: %s", span(p.Until.Sub(now)), p.Why)
		case p.Why != "":
			state += ": " + p.Why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", cmp.Or(p.Node, "-"), cmp.Or(join(p.Subnets), p.Key), valid(p.PublicIP), paths(p.Path), state)
	}
	_ = t.Flush() // to a terminal or a pipe that nobody reads any more
	if len(peers) == 0 {
		fmt.Fprintln(w, "none")
	}
}

// valid joins addresses; those of a lease that could not be read are not there.
func valid(all []netip.Addr) string {
	var some []netip.Addr
	for _, a := range all {
		if a.IsValid() {
			some = append(some, a)
		}
	}
	return cmp.Or(join(some), "-")
}

// paths names each device once.
func paths(all []string) string {
	var some []string
	for _, p := range all {
		if p != "" && (len(some) == 0 || some[len(some)-1] != p) {
			some = append(some, p)
		}
	}
	return cmp.Or(strings.Join(some, " "), "-")
}
