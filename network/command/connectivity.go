package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/connectivity"
	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// kubectlFlags are how a command finds kubectl, and which cluster kubectl is to ask.
type kubectlFlags struct{ path, kubeconfig, context string }

func (f *kubectlFlags) register(s *pflag.FlagSet) {
	s.StringVar(&f.path, "kubectl", "", "path of kubectl (default: looked for in PATH)")
	s.StringVar(&f.kubeconfig, "kubeconfig", "", "as for kubectl: file with the cluster and the credentials")
	s.StringVar(&f.context, "context", "", "as for kubectl: which of the clusters in that file")
}

func (f *kubectlFlags) client() (c kubectl.Client) {
	c.Path = f.path
	if f.kubeconfig != "" {
		c.Flags = append(c.Flags, "--kubeconfig="+f.kubeconfig)
	}
	if f.context != "" {
		c.Flags = append(c.Flags, "--context="+f.context)
	}
	return c
}

// connectivityFlags are those of connectivity-test.
type connectivityFlags struct {
	options  connectivity.Options
	in       connectivity.Kubernetes
	policies string
	outside  []string
	junit    string
}

// ConnectivityTest tests a Kubernetes cluster's network with pods of its own.
//
// above has the flags for kubectl, if the command above has them already; nil: it has not.
func ConnectivityTest(above *kubectlFlags) *cobra.Command {
	var (
		f connectivityFlags
		q query
	)
	tool := above
	if tool == nil {
		tool = &kubectlFlags{}
	}
	c := &cobra.Command{
		Use:   "connectivity-test",
		Short: "Test a Kubernetes cluster's network with pods of its own",
		Long: `connectivity-test runs two pods on each node of a Kubernetes cluster, from selvage's own image. They
call each other, the nodes, a Service, the API server, the cluster's DNS and addresses outside, in each family, also
with packets of the full size. Pods have to see each other's own addresses. If the daemons enforce network policies,
the test applies some, and tries what they allow and what they deny. With --restart, it restarts the daemons node by
node under streams of datagrams, none of which may be lost.

It runs kubectl, so it can be started wherever kubectl works, and needs these rights: to create and delete the namespace
and what is in it, to run commands in the pods of the test and of the daemons, and to list nodes. It removes all that it
created, also when it is interrupted. No traffic leaves the cluster unless --outside names an address.

In a cluster of more than ` + fmt.Sprint(connectivity.MostPeers+1) + ` nodes, each pod calls the pods of ` +
			fmt.Sprint(connectivity.MostPeers) + ` other nodes only.

Exit codes: 0 all was answered as it had to be, 2 something was not, 1 the cluster could not be tested.`,
		Example: `  selvaged connectivity-test
  selvaged connectivity-test --restart --outside 192.0.2.7:443 --junit result.xml
  selvaged connectivity-test --context staging -o json | jq '.checks[] | select(.failures)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.finish(q); err != nil {
				return err
			}
			f.in.Kubectl = tool.client()
			return testConnectivity(cmd, q, f)
		},
	}
	s := c.Flags()
	if above == nil {
		tool.register(s)
		c.AddCommand(connectivityServe(), connectivityProbe())
	} else {
		c.Example = strings.ReplaceAll(c.Example, "  selvaged ", "  kubectl selvage ")
	}
	s.StringVar(&f.in.Namespace, "namespace", connectivity.DefaultNamespace, "namespace that is created, and removed")
	s.StringVar(&f.in.Image, "image", "", "image of selvage for the pods (default: that of the daemons)")
	s.StringVar(&f.policies, "policies", string(connectivity.PoliciesAuto),
		"try network policies: on, off, or auto (if all daemons of selvage enforce them)")
	CompleteFlag(c, "policies", policyWords()...)
	s.StringSliceVar(&f.outside, "outside", nil,
		"address and TCP port outside the cluster to connect to, such as 192.0.2.7:443; repeatable")
	s.BoolVar(&f.options.Restart, "restart", false, "restart the daemons' DaemonSet, node by node, under streams")
	s.BoolVar(&f.in.Keep, "keep", false, "keep the namespace and the pods")
	s.DurationVar(&f.in.Timeout, "timeout", 5*time.Minute,
		"how long pods may take to become ready, and a rolling restart")
	s.StringVar(&f.junit, "junit", "", "file for the result in the format of JUnit, which CI systems read")
	q.outputFlag(c)
	return c
}

func policyWords() []string {
	return texts([]connectivity.Policies{connectivity.PoliciesOn, connectivity.PoliciesOff, connectivity.PoliciesAuto})
}

// finish checks the flags and turns them into options.
func (f *connectivityFlags) finish(q query) error {
	if err := q.check(); err != nil {
		return err
	}
	if !slices.Contains(policyWords(), f.policies) {
		return fmt.Errorf("--policies: %q, want on, off or auto", f.policies)
	}
	f.options.Policies = connectivity.Policies(f.policies)
	if f.in.Timeout <= 0 {
		return fmt.Errorf("--timeout: %s, want more than 0", f.in.Timeout)
	}
	for _, text := range f.outside {
		at, err := netip.ParseAddrPort(text)
		if err != nil || at.Port() == 0 {
			return fmt.Errorf("--outside: %q is not an address with a port such as 192.0.2.7:443 or "+
				"[2001:db8::7]:443", text)
		}
		f.options.Outside = append(f.options.Outside, at)
	}
	return nil
}

func testConnectivity(cmd *cobra.Command, q query, f connectivityFlags) error {
	out, notes := cmd.OutOrStdout(), cmd.ErrOrStderr()
	tell := func(text string) { fmt.Fprintln(notes, text) }
	f.options.Tell, f.in.Tell = tell, tell
	f.options.Warn = func(err error) { fmt.Fprintf(notes, "warning: %v\n", err) }
	report, err := connectivity.Run(cmd.Context(), &f.in, f.options)
	if err != nil {
		return err
	}
	report.Image = f.in.Image
	if f.junit != "" {
		var text bytes.Buffer
		writeJUnit(&text, connectivityJUnit(report))
		if err := wholefile.Replace(f.junit, text.Bytes(), 0o644, 0o755); err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if err := show(out, q, report, ShowConnectivity); err != nil {
		return err
	}
	if !report.OK() {
		return Exit{ExitDegraded}
	}
	return nil
}

// connectivityJUnit returns a report in the form of JUnit: each check is one test.
func connectivityJUnit(r connectivity.Report) []junitSuite {
	s := junitSuite{name: "connectivity-test", took: r.Took}
	for _, c := range r.Checks {
		one := junitCase{class: s.name, name: c.Title(), skipped: c.NotRun, took: c.Took}
		if len(c.Failures) > 0 {
			one.failure = fmt.Sprintf("%d of %d failed", c.Failed, c.Probes)
			one.text = strings.Join(texts(c.Failures), "\n")
		}
		s.cases = append(s.cases, one)
	}
	return []junitSuite{s}
}

// mostFailures is how many failures of a check are shown as text.
const mostFailures = 5

// ShowConnectivity writes a report as a table, for people.
func ShowConnectivity(w io.Writer, r connectivity.Report) {
	st := styleFor(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tFAMILY\tPROBES\tFAILED\tTIME\tVERDICT")
	failed, notRun := 0, 0
	for _, c := range r.Checks {
		verdict := st.good("ok")
		switch {
		case len(c.Failures) > 0:
			failed++
			verdict = st.bad("failed")
		case c.NotRun != "":
			notRun++
			fmt.Fprintf(t, "%s\t\t\t\t\t%s: %s\n", c.Name, st.odd("not run"), c.NotRun)
			continue
		}
		family := c.Family
		if family == "" {
			family = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.1f s\t%s\n", c.Name, family, c.Probes, c.Failed, c.Took.Seconds(), verdict)
	}
	_ = t.Flush() // a terminal, or a pipe whose reader is gone
	for _, c := range r.Checks {
		for i, f := range c.Failures {
			if i == 0 {
				fmt.Fprintf(w, "\n%s:\n", st.bold(c.Title()))
			}
			if i == mostFailures {
				fmt.Fprintf(w, "  and %d more; -o json has them all\n", len(c.Failures)-mostFailures)
				break
			}
			fmt.Fprintln(w, st.fold("  "+f.String(), 4))
		}
	}
	fmt.Fprintf(w, "\n%d checks on %d nodes in %.0f s: %d failed, %d not run\n",
		len(r.Checks), len(r.Nodes), r.Took.Seconds(), failed, notRun)
}

// connectivityServe is what runs in the pods.
func connectivityServe() *cobra.Command {
	var (
		port uint16
		name string
	)
	c := &cobra.Command{
		Use: "serve", Hidden: true, Args: cobra.NoArgs, Short: "Answer the calls of other pods",
		Example: "  selvaged connectivity-test serve",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return agent.Serve(cmd.Context(), agent.Addresses{Echo: fmt.Sprintf(":%d", port), Name: name})
		},
	}
	c.Flags().Uint16Var(&port, "port", agent.EchoPort, "UDP and TCP port")
	c.Flags().StringVar(&name, "name", "", "name to answer with (default: the host's)")
	return c
}

// connectivityProbe is what runs in a pod to make calls.
func connectivityProbe() *cobra.Command {
	return &cobra.Command{
		Use: "probe", Hidden: true, Args: cobra.NoArgs, Short: "Make the calls that standard input lists as JSON",
		Example: `  echo '{"Calls": [{"Network": "tcp", "To": "10.5.29.7:7070"}]}' | selvaged connectivity-test probe`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return agent.Perform(context.WithoutCancel(cmd.Context()), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
