package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// dropTime is how the time of a drop is shown: RFC 3339 in UTC, with milliseconds.
const dropTime = "2006-01-02T15:04:05.000Z"

// Drops shows the packets that this node dropped because of network policies.
func Drops() *cobra.Command {
	var (
		q      query
		follow bool
	)
	c := &cobra.Command{
		Use:   "drops",
		Short: "Show packets that network policies denied on this node",
		Long: `drops shows the last packets that this node denied because of network policies: when, in which direction
as seen from the pod whose policies denied it, from where to where, and why. Of the packets that one rule denies, a few
a second are reported.

The daemon keeps the last few hundred, since its start. With -o json, each is a line. While the daemon cannot read what
the rules log, a note on standard error says so.

Exit codes: 0 shown, 4 the daemon does not run, 1 any other error, also if the daemon enforces no policies.`,
		Example: `  selvaged drops
  selvaged drops --follow
  selvaged drops --follow -o json | jq 'select(.destination.pod == "shop/db")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			if !follow {
				limited, cancel := context.WithTimeout(ctx, answerTimeout)
				defer cancel()
				ctx = limited
			}
			out, client := cmd.OutOrStdout(), status.NewClient(q.socket)
			if text := dropsUnread(ctx, client); text != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), text)
			}
			err := client.Drops(ctx, follow, func(d status.Drop) error {
				return q.showDrop(out, d)
			})
			if follow && ctx.Err() != nil { // interrupted
				return nil
			}
			return notRunning(cmd, err)
		},
	}
	q.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "also show packets to come, until interrupted")
	return c
}

// dropsUnread says why the daemon misses denied packets; empty: it misses none, or that is not known.
func dropsUnread(ctx context.Context, client *status.Client) string {
	s, err := client.Status(ctx)
	if err != nil {
		return "" // the next query has the same error, and says it
	}
	for _, p := range s.Problems {
		if p.Code == status.PolicyDropsUnread {
			return fmt.Sprintf("%s; selvaged doctor --check policies says what to do", p.Text)
		}
	}
	return ""
}

// showDrop shows a drop as a line, of text or JSON.
func (q query) showDrop(w io.Writer, d status.Drop) error {
	if q.output == "json" {
		return json.NewEncoder(w).Encode(d)
	}
	if d.Missed > 0 {
		if _, err := fmt.Fprintf(w, "at least %d more could not be reported\n", d.Missed); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, dropText(styleFor(w), d))
	return err
}

// dropText returns a drop as a line.
func dropText(st style, d status.Drop) string {
	end := func(e status.PolicyEnd, port string) string {
		text := e.Address.String()
		if port != "" && e.Address.Is6() {
			text = "[" + text + "]"
		}
		if text += port; e.Pod != "" {
			text = e.Pod + " (" + text + ")"
		}
		return text
	}
	source, destination := "", ""
	if d.SourcePort != 0 || d.DestinationPort != 0 {
		source, destination = fmt.Sprintf(":%d", d.SourcePort), fmt.Sprintf(":%d", d.DestinationPort)
	}
	return fmt.Sprintf("%s %-7s %s -> %s %s: %s", d.At.UTC().Format(dropTime), d.Direction,
		end(d.Source, source), end(d.Destination, destination), d.Protocol, st.bad(dropCause(d)))
}

// dropCause says why a packet was dropped.
func dropCause(d status.Drop) string {
	switch c := status.DropCause(d.Cause); c {
	case status.DropIsolated:
		if len(d.Isolated) == 0 { // the policies have changed meanwhile
			return "no rule allows it"
		}
		return "no rule allows it; isolated by " + strings.Join(d.Isolated, ", ")
	case status.DropDenied:
		if d.Rule == nil {
			return "denied by " + d.Policy
		}
		return fmt.Sprintf("denied by %s %s[%d]", d.Policy, d.Direction, *d.Rule)
	case status.DropInvalid:
		return "it belongs to no known connection, and the pod is isolated"
	case status.DropNoRulesYet:
		return "the pod's rules are not in force yet"
	case status.DropCut:
		return "of a connection that policies deny by now"
	case status.DropSpoofed:
		return "the source is not an address of the pod"
	case status.DropLinkLocal:
		return "the source is link-local, and no policy can allow that"
	default:
		return string(c)
	}
}
