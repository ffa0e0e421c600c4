package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Peers lists the other nodes.
func Peers() *cobra.Command {
	var (
		q   query
		bad bool
	)
	c := &cobra.Command{
		Use:   "peers",
		Short: "List the other nodes, and whether they can be reached",
		Long: `peers shows one line for each other node's lease: its subnets, the public IP that packets for it are sent
to, the device, and whether the kernel holds all entries for it. A rejected lease is shown with the reason.

A node probes a few peers through the overlay: these are reachable, with the round-trip time, or unreachable. A peer
that is "not probed" is probed by other nodes, or the reason why this node probes none is shown.`,
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
					if p.State != status.Programmed || slices.ContainsFunc(p.Reach, isUnreachable) {
						some = append(some, p)
					}
				}
				return some, err
			}
			_, err := ask(cmd, q, get, func(w io.Writer, p []status.Peer) { showPeers(w, styleFor(w), p, q.now()) })
			return err
		},
	}
	q.flags(c)
	c.Flags().BoolVar(&bad, "bad", false, "only peers that are not programmed, or unreachable")
	return c
}

// showPeers writes a table. The state is the last column, since its reason can be long. If the table is too wide, each
// family of a peer has its own line.
func showPeers(w io.Writer, st style, peers []status.Peer, now time.Time) {
	text := peersTable(st, peers, now, join[string])
	tooWide := func(line string) bool { return columns(line) > st.width }
	if st.width > 0 && slices.ContainsFunc(strings.Split(text, "\n"), tooWide) {
		text = peersTable(st, peers, now, func(all []string) string { return strings.Join(all, "\n") })
	}
	state := strings.Index(text, "STATE")
	for line := range strings.Lines(text) {
		fmt.Fprintln(w, st.fold(strings.TrimRight(line, " \n"), state))
	}
	if len(peers) == 0 {
		fmt.Fprintln(w, "none")
	}
}

// peersTable returns the table. combine joins the values of a peer in one column; each line of the result becomes a
// line of the table.
func peersTable(st style, peers []status.Peer, now time.Time, combine func([]string) string) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSUBNETS\tPUBLIC IP\tPATH\tSTATE")
	for _, p := range peers {
		subnets := cmp.Or(combine(texts(p.Subnets)), p.Key)
		public, path := cmp.Or(combine(texts(valid(p.PublicIP))), "-"), cmp.Or(combine(paths(p.Paths)), "-")
		all := [][]string{
			{cmp.Or(p.Node, "-")}, strings.Split(subnets, "\n"), strings.Split(public, "\n"), strings.Split(path, "\n"),
			{stateText(st, p, now)},
		}
		for i := range max(len(all[1]), len(all[2]), len(all[3])) {
			cells := make([]string, len(all))
			for j, c := range all {
				if i < len(c) {
					cells[j] = c[i]
				}
			}
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
	}
	_ = t.Flush() // to memory
	return b.String()
}

// stateText returns a peer's state and its reason.
func stateText(st style, p status.Peer, now time.Time) string {
	state := string(p.State)
	switch p.State {
	case status.Programmed:
		state = st.good(state)
	case status.Quarantined:
		state = st.bad(state)
	default:
		state = st.odd(state)
	}
	switch {
	case p.State == status.Grace:
		return state + fmt.Sprintf(" for %s: %s", span(p.Until.Sub(now)), p.Why)
	case p.Why != "":
		return fmt.Sprintf("%s: %s", state, p.Why)
	case len(p.Reach) > 0 && p.Reach[0].Code != status.ProbesOff:
		return state + ", " + reachText(st, p, now)
	}
	return state
}

func isProbed(r status.Reach) bool { return r.State != status.NotProbed }

func isUnreachable(r status.Reach) bool { return r.State == status.Unreachable }

// reachText returns the reachability of a peer: "reachable (0.31 ms)", and of two families that differ, both.
func reachText(st style, p status.Peer, now time.Time) string {
	var all []string
	for i, r := range p.Reach {
		text := string(r.State)
		switch {
		case r.State == status.Reachable:
			text += " (" + milliseconds(r.RTT) + ")"
		case r.State == status.Unreachable:
			text = st.bad(text) + " for " + ago(now, r.Since)
			if r.Error != "" {
				text += fmt.Sprintf(": %s", r.Error)
			}
		case r.Code == status.NotPermitted:
			text += " (no CAP_NET_RAW)"
		}
		if probed := slices.ContainsFunc(p.Reach, isProbed); probed && len(p.Reach) > 1 && i < len(p.Subnets) {
			text = subnet.FamilyOf(p.Subnets[i].Addr()).String() + " " + text
		} else if i > 0 {
			continue // as the first one
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// milliseconds formats a round-trip time: "0.31 ms".
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// valid leaves out the addresses of a lease that could not be parsed.
func valid(all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !a.IsValid() })
}

// paths names each device once.
func paths(all []status.PeerPath) []string {
	all = slices.DeleteFunc(slices.Clone(all), func(p status.PeerPath) bool { return p.Device == "" })
	return texts(slices.Compact(all))
}
