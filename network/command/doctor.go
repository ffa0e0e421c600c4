package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/network/node/status"
)

// Exit codes of doctor besides 0 and 1.
const (
	ExitFailure = 2
	ExitWarning = 3
)

// defaultCNIConfDir is where container runtimes look for CNI configurations by default.
const defaultCNIConfDir = "/etc/cni/net.d"

// Doctor diagnoses the node and its paths to other nodes.
func Doctor() *cobra.Command {
	o := doctor.Options{Now: time.Now}
	var (
		output  string
		all     bool
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Diagnose this node and its paths to other nodes, and advise repairs",
		Long: `doctor checks the daemon, etcd, the kernel, the packet filter, the files and the CNI plugins of this
node. It also probes other nodes with a few small and full-size packets, on the underlay and in the overlay. For each
problem it shows the evidence and what to do. It changes nothing, and needs root. If the daemon is not running, the
checks that need it are skipped.

Exit codes: 0 all passed, 3 warnings only, 2 failures, 1 doctor itself failed.`,
		Example: `  selvaged doctor
  selvaged doctor --peer node7
  selvaged doctor --check device,routes,filter
  selvaged doctor --all --timeout 2m -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: %q, want table or json", output)
			}
			if timeout <= 0 || o.Sample <= 0 {
				return fmt.Errorf("--timeout and --sample: want more than 0")
			}
			if err := doctor.ValidateChecks(o.Checks); err != nil {
				return fmt.Errorf("--check: %w", err)
			}
			if all {
				o.Sample = 0
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			p := progressFor(cmd.ErrOrStderr())
			o.Progress = p.show
			r, err := doctor.Examine(ctx, o)
			p.clear()
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				err = encoder.Encode(r)
			} else {
				showReport(cmd.OutOrStdout(), styleFor(cmd.OutOrStdout()), r)
			}
			if err != nil {
				return err
			}
			return exitOfReport(r.Result)
		},
	}
	s := c.Flags()
	s.StringVar(&o.Socket, "socket", status.DefaultSocket, "path of the daemon's socket")
	s.StringVarP(&output, "output", "o", "table", "output format: table or json")
	s.BoolVar(&all, "all", false, "probe all other nodes")
	s.IntVar(&o.Sample, "sample", 20, "number of other nodes to probe, chosen at random")
	s.StringVar(&o.Peer, "peer", "", "probe only this node: its name, subnet or public IP")
	s.StringSliceVar(&o.Checks, "check", nil, "run only these checks, such as peers,etcd; "+
		"without peers, no node is probed")
	s.DurationVar(&timeout, "timeout", 30*time.Second, "time limit")
	s.StringVar(&o.CNIConfDir, "cni-conf-dir", defaultCNIConfDir,
		"directory of the container runtime's CNI configurations; empty: skip them")
	s.StringSliceVar(&o.CNIBinDirs, "cni-bin-dir", []string{"/opt/cni/bin", "/usr/lib/cni"},
		"directories of the container runtime's CNI plugins, in search order")
	s.StringVar(&o.SubnetFile, "subnet-file", "/run/flannel/subnet.env",
		"path of the subnet file, used if the daemon is not running")
	CompleteFlag(c, "output", "table", "json")
	_ = c.RegisterFlagCompletionFunc("check", completeChecks)
	_ = c.RegisterFlagCompletionFunc("peer", completePeers(nameOf))
	return c
}

func exitOfReport(l doctor.Level) error {
	switch l {
	case doctor.Failure:
		return Exit{ExitFailure}
	case doctor.Warning:
		return Exit{ExitWarning}
	}
	return nil
}

// showReport writes a report for people, failures first.
func showReport(w io.Writer, st style, r doctor.Report) {
	marks := map[doctor.Level]string{
		doctor.Pass: st.good("pass   "), doctor.Warning: st.odd("warning"), doctor.Failure: st.bad("FAILURE"),
	}
	for _, f := range r.Findings {
		line := fmt.Sprintf("%s  %s: %s", marks[f.Level], st.bold(f.Check), f.Evidence)
		fmt.Fprintln(w, st.fold(line, len("FAILURE  ")))
		if f.Advice != "" { // not folded: it contains commands to copy
			fmt.Fprintf(w, "         → %s\n", f.Advice)
		}
	}
	fmt.Fprintf(w, "%s, %s, %d passed; %d of %s probed\n",
		count(r.Count(doctor.Failure), "failure"), count(r.Count(doctor.Warning), "warning"), r.Count(doctor.Pass),
		r.Probed, count(r.Peers, "other node"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// progress is a line on a terminal that is overwritten.
type progress struct {
	w     io.Writer
	shown time.Time
	what  string
}

// progressFor returns a progress that shows nothing without a terminal.
func progressFor(w io.Writer) *progress {
	if _, ok := terminal(w); !ok {
		w = nil
	}
	return &progress{w: w}
}

// progressEvery limits how often the line is written.
const progressEvery = 50 * time.Millisecond

// show must not be called concurrently.
func (p *progress) show(what string, done, of int) {
	if p.w == nil || what == p.what && done < of && time.Since(p.shown) < progressEvery {
		return
	}
	p.what, p.shown = what, time.Now()
	if of > 0 {
		what = fmt.Sprintf("%s, %d of %d", what, done, of)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s…", what)
}

func (p *progress) clear() {
	if p.w != nil && p.what != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
