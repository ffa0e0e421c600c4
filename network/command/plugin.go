package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/kubectl"
)

// PluginName is the name by which the program is a plugin of kubectl, see kubernetes.io/docs/tasks/extend-kubectl.
const PluginName = "kubectl-selvage"

// podArgs are what a command is run with in a daemon's pod: its container does not have the node's directories of CNI.
func podArgs(command ...string) []string {
	if command[0] == "doctor" {
		command = append(command, "--cni-conf-dir=")
	}
	return append([]string{kubectl.DaemonPath}, command...)
}

// plugin is what the commands of the plugin share.
type plugin struct {
	tool      kubectlFlags
	namespace string // of pods that are given by name only
	version   string
}

// Plugin returns the command line of the plugin of kubectl: it asks the daemons that run as pods of a Kubernetes
// cluster, through the API server.
func Plugin(version string) *cobra.Command {
	p := &plugin{version: version}
	root := &cobra.Command{
		Use:   "kubectl-selvage COMMAND",
		Short: "Ask the daemons of selvage in a Kubernetes cluster",
		Long: `kubectl selvage asks the daemons of selvage that run as pods of a Kubernetes cluster. It runs kubectl,
which runs the commands in the daemons' pods through the API server: no login to a node is needed, and no port is
opened. It needs the rights to list pods in all namespaces, and to run commands in the daemons' pods (pods/exec).`,
		Example: `  kubectl selvage status
  kubectl selvage doctor node7
  kubectl selvage explain web-1 db-0:5432`,
		Args:          cobra.NoArgs,
		RunE:          explainArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl selvage"},
	}
	p.tool.register(root.PersistentFlags())
	root.AddCommand(p.status(), p.doctor(), p.explain(), p.cleanup(), ConnectivityTest(&p.tool),
		p.forward("peers NODE", "Show the other nodes, as a node's daemon knows them",
			"peers runs selvaged peers in the pod of a node's daemon."),
		p.forward("drops NODE", "Show the packets that network policies denied on a node",
			"drops runs selvaged drops in the pod of a node's daemon."),
		p.forward("mesh [NODE]", "Show all nodes of the cluster, as their daemons answer each other",
			"mesh runs selvaged mesh in the pod of a node's daemon, or of any that is ready. The daemons need "+
				"--mesh-addr."))
	ExplainUsage(root)
	return root
}

// forward returns a command that is run in the pod of one node's daemon as it is: of the node that its argument names,
// or, if that is optional and missing, of any that is ready.
func (p *plugin) forward(use, short, long string) *cobra.Command {
	name, argument, _ := strings.Cut(use, " ")
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		Long:    long + "\n\nExit codes are those of that command.",
		Example: "  kubectl selvage " + name + " node7",
	}
	if strings.HasPrefix(argument, "[") {
		c.Args = cobra.MaximumNArgs(1)
	}
	var output string
	c.Flags().StringVarP(&output, "output", "o", "table", "output format: table or json")
	CompleteFlag(c, "output", "table", "json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		tool := p.tool.client()
		daemons, err := tool.Daemons(cmd.Context())
		if err != nil {
			return err
		}
		d := daemons[max(0, slices.IndexFunc(daemons, func(d kubectl.Daemon) bool { return d.Ready }))]
		if len(args) > 0 {
			if d, err = kubectl.On(daemons, args[0]); err != nil {
				return unknownNode(daemons, args[0], err)
			}
		}
		return exitOfRun(tool.Run(cmd.Context(), nil, cmd.OutOrStdout(), cmd.ErrOrStderr(),
			d.Exec(podArgs(name, "-o", output)...)...))
	}
	return c
}

// exitOfRun turns the error of a command whose messages were shown into its exit code.
func exitOfRun(err error) error {
	var failed *kubectl.Error
	if errors.As(err, &failed) && failed.Code > 0 {
		return Exit{failed.Code}
	}
	return err
}

// unknownNode adds to an error the nodes that have similar names.
func unknownNode(daemons []kubectl.Daemon, name string, err error) error {
	names := make([]string, 0, len(daemons))
	for _, d := range daemons {
		names = append(names, d.Node)
	}
	return fmt.Errorf("%w%s", err, didYouMean(name, "", names))
}

// nodeOutput is what a command printed in the pod of a node's daemon.
type nodeOutput struct {
	kubectl.Daemon
	text []byte
	err  error
}

// code returns the exit code of the command; -1: it could not be run.
func (o nodeOutput) code() int {
	var failed *kubectl.Error
	switch {
	case o.err == nil:
		return 0
	case errors.As(o.err, &failed):
		return failed.Code
	default:
		return -1
	}
}

// nodesAtOnce is how many daemons are asked at a time.
const nodesAtOnce = 16

// onNodes runs a command in the pods of the daemons of some nodes, or of all.
func (p *plugin) onNodes(ctx context.Context, nodes []string, command ...string) ([]nodeOutput, error) {
	tool := p.tool.client()
	daemons, err := tool.Daemons(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range nodes {
		if _, err := kubectl.On(daemons, name); err != nil {
			return nil, unknownNode(daemons, name, err)
		}
	}
	if len(nodes) > 0 {
		daemons = slices.DeleteFunc(daemons, func(d kubectl.Daemon) bool { return !slices.Contains(nodes, d.Node) })
	}
	return onDaemons(ctx, tool, daemons, command...)
}

// onDaemons runs a command in the pods of daemons.
func onDaemons(
	ctx context.Context, tool kubectl.Client, daemons []kubectl.Daemon, command ...string,
) ([]nodeOutput, error) {
	all := make([]nodeOutput, len(daemons))
	var running sync.WaitGroup
	room := make(chan struct{}, nodesAtOnce)
	for i, d := range daemons {
		all[i].Daemon = d
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			var out bytes.Buffer
			all[i].err = tool.Run(ctx, nil, &out, nil, all[i].Exec(podArgs(command...)...)...)
			all[i].text = out.Bytes()
		})
	}
	running.Wait()
	return all, ctx.Err()
}

// doctor diagnoses nodes.
func (p *plugin) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [NODE]...",
		Short: "Diagnose nodes and their paths to other nodes, and advise repairs",
		Long: `doctor runs selvaged doctor in the pods of the daemons of some nodes, or of all, and shows the findings
of nodes that have any. The files of the container runtime are not in the pods, and are not checked.

Exit codes: 0 all passed, 3 warnings only, 2 failures, 1 a node could not be diagnosed.`,
		Example: `  kubectl selvage doctor
  kubectl selvage doctor node7`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := p.onNodes(cmd.Context(), args, "doctor")
			if err != nil {
				return err
			}
			showDoctors(cmd.OutOrStdout(), all)
			return exitOfDoctors(all)
		},
	}
}

func showDoctors(w io.Writer, all []nodeOutput) {
	st := styleFor(w)
	for _, o := range all {
		switch code := o.code(); {
		case code == 0:
			fmt.Fprintf(w, "%s: %s\n", st.bold(o.Node), st.good("all passed"))
		case len(o.text) == 0:
			fmt.Fprintf(w, "%s: %s: %v\n", st.bold(o.Node), st.bad("could not be diagnosed"), o.err)
		default:
			fmt.Fprintf(w, "%s:\n", st.bold(o.Node))
			for line := range bytes.Lines(o.text) {
				fmt.Fprintf(w, "  %s", line)
			}
		}
	}
}

// exitOfDoctors returns the exit code of the worst.
func exitOfDoctors(all []nodeOutput) error {
	for _, code := range []int{-1, 1, ExitFailure, ExitWarning} {
		if slices.ContainsFunc(all, func(o nodeOutput) bool { return o.code() == code }) {
			return Exit{max(code, 1)}
		}
	}
	return nil
}
