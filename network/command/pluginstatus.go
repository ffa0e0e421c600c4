package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/status"
)

// NodeStatus is the status of one node of a cluster.
type NodeStatus struct {
	Node   string         `json:"node"`
	Status *status.Status `json:"status,omitempty"` // nil: its daemon could not be asked
	Error  string         `json:"error,omitempty"`  // why, for people
}

// status shows the nodes' states.
func (p *plugin) status() *cobra.Command {
	var q query
	c := &cobra.Command{
		Use:   "status [NODE]...",
		Short: "Show whether the nodes are ready, and why not",
		Long: `status shows a line for each node, or for some: nodes with problems come first. Of one node, it shows the
output of selvaged status.

Exit codes: 0 all are ready, 2 a node is degraded, not ready yet, or could not be asked, 1 any other error.`,
		Example: `  kubectl selvage status
  kubectl selvage status node7
  kubectl selvage status -o json | jq '.[] | select(.status.state != "ready") | .node'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := q.check(); err != nil {
				return err
			}
			outputs, err := p.onNodes(cmd.Context(), args, "status", "-o", "json")
			if err != nil {
				return err
			}
			all := parseStatuses(outputs)
			table := func(w io.Writer, all []NodeStatus) { showNodes(w, styleFor(w), all) }
			if len(args) == 1 && all[0].Status != nil {
				table = func(w io.Writer, all []NodeStatus) {
					showStatus(w, styleFor(w), *all[0].Status, all[0].Status.Version, q.now())
				}
			}
			if err := show(cmd.OutOrStdout(), q, all, table); err != nil {
				return err
			}
			if slices.ContainsFunc(all, func(n NodeStatus) bool { return n.trouble() > 0 }) {
				return Exit{ExitDegraded}
			}
			return nil
		},
	}
	q.outputFlag(c)
	return c
}

// parseStatuses reads what the daemons answered, and sorts the nodes: what is wrong comes first.
func parseStatuses(outputs []nodeOutput) (all []NodeStatus) {
	for _, o := range outputs {
		n := NodeStatus{Node: o.Node}
		var s status.Status
		switch err := json.Unmarshal(o.text, &s); {
		case err == nil:
			n.Status = &s
		case o.err != nil: // a node that is not ready has an exit code, too, and answers
			n.Error = o.err.Error()
		default:
			n.Error = err.Error()
		}
		all = append(all, n)
	}
	slices.SortStableFunc(all, func(a, b NodeStatus) int {
		return cmp.Or(-cmp.Compare(a.trouble(), b.trouble()), strings.Compare(a.Node, b.Node))
	})
	return all
}

// trouble says how bad a node's state is; 0: it is ready.
func (n NodeStatus) trouble() int {
	switch {
	case n.Status == nil:
		return 4
	case len(n.Status.Cut) > 0:
		return 3
	case n.Status.State == status.Degraded:
		return 2
	case n.Status.State != status.Ready:
		return 1
	}
	return 0
}

func showNodes(w io.Writer, st style, all []NodeStatus) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tSUBNETS\tBACKEND\tPEERS\tREPAIRS\tPOLICIES\tVERSION\tPROBLEM")
	for _, n := range all {
		if n.Status == nil {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t\t\t\t%s\n", n.Node, st.bad("no answer"), n.Error)
			continue
		}
		s := n.Status
		state := st.good(string(s.State))
		if n.trouble() > 0 {
			state = st.bad(string(s.State))
		}
		subnets, backend, policies, problem := "-", "-", "off", ""
		if s.Lease != nil {
			subnets = join(s.Lease.Subnets)
		}
		if s.Backend != nil {
			backend = s.Backend.Type
		}
		if s.Enforcement != nil {
			policies = "on"
		}
		if len(s.Cut) > 0 {
			problem = strings.Join(s.Cut, " and ") + " to other nodes is cut; "
		}
		if len(s.Problems) > 0 {
			problem += fmt.Sprintf("%s: %s", s.Problems[0].Topic, s.Problems[0].Text)
		}
		if more := len(s.Problems) - 1; more > 0 {
			problem += fmt.Sprintf(" (and %d more)", more)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", n.Node, state, subnets, backend, s.Peers.Programmed,
			s.Repairs.Total, policies, s.Version, problem)
	}
	_ = t.Flush() // a terminal, or a pipe whose reader is gone
}
