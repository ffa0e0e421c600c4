package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// rotationPoll is how often the daemon is asked how far it is.
const rotationPoll = 500 * time.Millisecond

// RotateKey changes the key by which other nodes know this one.
func RotateKey() *cobra.Command {
	var (
		q       query
		force   bool
		wait    bool
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "rotate-key",
		Short: "Change this node's WireGuard key, without losing a packet",
		Long: `rotate-key has the daemon make a new WireGuard key, and tell it to the other nodes. Packets go by second
devices meanwhile (flannel-wg-2, and flannel-wg-v6-2), and return to the first ones when these have the new key. No
device is left before the other end has been seen to use the next one, so no packet is lost. Two nodes take about 15
seconds.

The UDP ports of the second devices have to be open: 51822 and 51823, or the two after Backend.ListenPort and
ListenPortV6. A node that does not answer there keeps the change waiting: one that is off, that has a version without
this command, or flannel. --force goes on without such nodes. They lose packets for some seconds, until they have seen
the new key in the lease; one that is off loses none.

The command waits until the key has been changed. The daemon goes on with it in any case, also after a restart. If a
change is under way, the command waits for that one.

Exit codes: 0 the key has been changed, 2 not within --timeout, or the daemon gave up, 4 the daemon does not run, 1 any
other error.`,
		Example: `  selvaged rotate-key
  selvaged rotate-key --timeout=1m
  selvaged rotate-key --force
  selvaged rotate-key --wait=false && selvaged status`,
		Args: cobra.NoArgs,

		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			begun, err := fetch(cmd.Context(), q, func(ctx context.Context, c *status.Client) (status.Rotation, error) {
				return c.RotateKey(ctx, force)
			})
			if err != nil {
				return notRunning(cmd, err)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "the new public key is %s\n", begun.NewKey)
			if !wait {
				return nil
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			return followRotation(ctx, cmd, q, begun.NewKey)
		},
	}
	c.Flags().StringVar(&q.socket, "socket", status.DefaultSocket, "path of the daemon's socket")
	c.Flags().BoolVar(&force, "force", false, "do not wait for nodes that do not answer: they lose packets for seconds")
	c.Flags().BoolVar(&wait, "wait", true, "wait until the key has been changed")
	c.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after that time; 0: never")
	return c
}

// followRotation prints how far a change of the key is, until it has ended. A daemon that is restarted meanwhile is
// waited for.
func followRotation(ctx context.Context, cmd *cobra.Command, q query, key string) error {
	out, last := cmd.OutOrStdout(), ""
	tick := time.NewTicker(rotationPoll)
	defer tick.Stop()
	for {
		s, err := fetch(ctx, q, func(ctx context.Context, c *status.Client) (status.Status, error) {
			return c.Status(ctx)
		})
		if err == nil && s.Backend != nil {
			r := s.Backend.Rotation
			switch text := fmt.Sprint(rotationLines(r)); {
			case r == nil || r.Stage == "":
				return rotationEnd(out, *s.Backend, key)
			case text != last:
				last = text
				for _, line := range rotationLines(r) {
					fmt.Fprintln(out, line)
				}
			}
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(cmd.ErrOrStderr(), "the key has not been changed yet; the daemon goes on: see selvaged status")
			return Exit{ExitDegraded}
		case <-tick.C:
		}
	}
}

// rotationEnd prints the outcome of a change of the key.
func rotationEnd(out io.Writer, b status.Backend, key string) error {
	has := func(d status.Device) bool {
		return slices.Contains(d.Settings, status.Setting{Name: "Key", Value: key})
	}
	if !slices.ContainsFunc(b.Devices, has) {
		fmt.Fprintln(out, "the key has not been changed: see the daemon's log for why it gave up")
		return Exit{ExitDegraded}
	}
	fmt.Fprintln(out, "the key has been changed")
	return nil
}

// rotationLines returns how far changes of keys are.
func rotationLines(r *status.Rotation) (lines []string) {
	if r == nil {
		return nil
	}
	steps := map[string]string{
		"requested": "it begins once the keys of other nodes have been changed",
		"offered":   "packets move to second devices, with the new key",
		"left":      "other nodes are to send by the second devices only",
		"returning": "packets return to the first devices, which have the new key now",
		"ending":    "the second devices are removed after the last packets",
	}
	if r.Stage != "" {
		lines = append(lines, "this node's key changes: "+cmp.Or(steps[r.Stage], r.Stage))
	}
	if r.Peers > 0 {
		lines = append(lines, fmt.Sprintf("the keys of %d peers change", r.Peers))
	}
	for _, w := range r.Waiting {
		lines = append(lines, fmt.Sprintf("waiting for %s: %s", cmp.Or(w.Node, w.Key), w.Why))
	}
	if r.More > 0 {
		lines = append(lines, fmt.Sprintf("waiting for %d more", r.More))
	}
	return lines
}
