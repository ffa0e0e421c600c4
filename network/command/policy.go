package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/node/policyview"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy/connection"
	"github.com/selvage-net/selvage/network/policy/manifest"
	"github.com/selvage-net/selvage/subnet"
)

// Policy tests, lists and explains network policies.
func Policy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy COMMAND",
		Short: "Test, list and explain network policies",
		Long: `policy says what network policies allow: NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy
(policy.networking.k8s.io/v1beta1). The policies are those of files as kubectl reads and writes them, which needs
neither a cluster nor a daemon, or for list and explain without --file those that this node's daemon enforces.`,
		Example: `  selvaged policy test deploy/ policy-test.yaml
  selvaged policy list --file deploy/
  selvaged policy explain --file deploy/ shop/web shop/db:5432`,
		Args: cobra.NoArgs,
		RunE: explainArgs,
	}
	c.AddCommand(policyTest(), policyList(), policyExplain())
	return c
}

// policyFiles has the flags about files with policies.
type policyFiles struct {
	namespace string
	networks  []string
}

func (f *policyFiles) flags(s *pflag.FlagSet) {
	s.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of objects that name none")
	s.StringSliceVar(&f.networks, "pod-network", []string{manifest.DefaultNetwork().String()},
		"where pods without an address get one: a network, or one for each family")
}

// parseNetworks returns the networks of the flag, at most one for each family.
func (f *policyFiles) parseNetworks() (all []netip.Prefix, err error) {
	for _, text := range f.networks {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("--pod-network: %q is not a prefix such as %s", text, manifest.DefaultNetwork())
		}
		if slices.ContainsFunc(all, func(other netip.Prefix) bool { return other.Addr().Is4() == p.Addr().Is4() }) {
			return nil, fmt.Errorf("--pod-network: %s is the second %s network, want one at most",
				p, subnet.FamilyOf(p.Addr()))
		}
		all = append(all, p)
	}
	return all, nil
}

// read reads the objects and tests of files. It prints on stderr what was not understood of them.
func (f *policyFiles) read(cmd *cobra.Command, paths []string) (*manifest.Cluster, []connection.Test, error) {
	networks, err := f.parseNetworks()
	if err != nil {
		return nil, nil, err
	}
	c := manifest.New(manifest.Options{Namespace: f.namespace, Workloads: true})
	var tests []connection.Test
	for _, path := range paths {
		files, err := filesAt(path)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			if tests, err = addFile(c, tests, file, cmd.InOrStdin()); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := c.Complete(networks...); err != nil {
		return nil, nil, fmt.Errorf("--pod-network: %w", err)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
	}
	return c, tests, nil
}

// filesAt returns a file, or the files of a directory that end as YAML and JSON do. - is standard input.
func filesAt(path string) (files []string, err error) {
	info, err := os.Stat(path)
	switch {
	case path == "-":
		return []string{path}, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return []string{path}, nil
	}
	for _, pattern := range []string{"*.yaml", "*.yml", "*.json"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no file *.yaml, *.yml or *.json", path)
	}
	slices.Sort(files)
	return files, nil
}

// addFile adds the objects of a file to a cluster, and its tests to others.
func addFile(
	c *manifest.Cluster, tests []connection.Test, file string, stdin io.Reader,
) ([]connection.Test, error) {
	data, err := read(file, stdin)
	if err != nil {
		return nil, err
	}
	documents, err := manifest.Split(file, data)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		if d.Kind != connection.TestKind {
			if err := c.Add(d); err != nil {
				return nil, err
			}
			continue
		}
		t, err := connection.ParseTest(d.Place(), d.JSON)
		if err != nil {
			return nil, err
		}
		t.Name = cmp.Or(t.Name, d.Place())
		tests = append(tests, t)
	}
	return tests, nil
}

// worldOf returns what files say.
func worldOf(c *manifest.Cluster) connection.World {
	return connection.World{Source: c, Policies: c.AllPolicies, Pods: c.AllPods}
}

// askPolicies asks about the policies of files or, without files, those of the daemon.
func askPolicies[T any](
	cmd *cobra.Command, q query, files []string, f policyFiles, inFiles func(connection.World) (T, error),
	inDaemon func(context.Context, *status.Client) (T, error),
) (answer T, err error) {
	if len(files) == 0 {
		answer, err = fetch(cmd.Context(), q, inDaemon)
		if errors.Is(err, status.ErrNoPolicies) {
			err = fmt.Errorf("%w; name files with --file to ask about the policies in them", err)
		}
		return answer, notRunning(cmd, err)
	}
	cluster, _, err := f.read(cmd, files)
	if err != nil {
		return answer, err
	}
	return inFiles(worldOf(cluster))
}

// policyList lists policies.
func policyList() *cobra.Command {
	var (
		q     query
		f     policyFiles
		files []string
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "List network policies",
		Long: `list shows each policy: how many pods it selects, of this node or of the files; the number of its rules
in each direction, "-" if it is not about that direction; which pods it selects; and what was not understood, which
allows nothing. ClusterNetworkPolicies come first, in the order in which they are asked.

FILE is a file or a directory with YAML or JSON as kubectl reads and writes it, or - for standard input.

Exit codes: 0 listed, 4 the daemon does not run, 1 any other error, also if the daemon enforces no policies.`,
		Example: `  selvaged policy list
  selvaged policy list --file deploy/
  kubectl get networkpolicies,namespaces,pods -A -o json | selvaged policy list --file - -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.check(); err != nil {
				return err
			}
			answer, err := askPolicies(cmd, q, files, f,
				func(w connection.World) (status.Policies, error) {
					return status.Policies{Policies: policyview.List(w, "")}, nil
				},
				func(ctx context.Context, c *status.Client) (status.Policies, error) { return c.Policies(ctx) })
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), q, answer, showPolicies)
		},
	}
	fileFlag(c, &files)
	f.flags(c.Flags())
	q.flags(c)
	return c
}

func fileFlag(c *cobra.Command, files *[]string) {
	c.Flags().StringSliceVarP(files, "file", "f", nil,
		"file or directory with policies and pods, instead of the daemon's; - for standard input; repeatable")
}

// policyExplain explains what policies decide about a connection.
func policyExplain() *cobra.Command {
	var (
		q     query
		f     policyFiles
		files []string
	)
	c := &cobra.Command{
		Use:   "explain SRC DST[:PORT]",
		Short: "Explain what network policies decide about a connection",
		Long: `explain says whether network policies allow a connection, and which rule of which policy decides: in
egress, at the node of the source, and in ingress, at the node of the destination. Both have to allow it. If a pod is
isolated and no rule matches, it says of each rule what does not match: the peer or the port.

SRC and DST are each a pod, as namespace/name, or an IP address. A Deployment or another workload of a file stands for a
pod with its name. A connection to a Service is judged by its endpoint: name the pod and the port of the container.

PORT is such as 80, 53/UDP, 8000-8999/TCP, the name of a port of the destination, or a protocol: TCP, UDP, SCTP or ICMP.
Without it, explain says for which ports the connection is allowed. An IPv6 address with a port is in brackets.

Without --file, the daemon answers. It knows the pods of other nodes only if a policy for a pod of this node needs them.

Exit codes: 0 allowed, 2 denied, also if only for some ports or in one family, 4 the daemon does not run, 1 any other
error, also if the daemon enforces no policies.`,
		Example: `  selvaged policy explain shop/web shop/db:5432
  selvaged policy explain --file deploy/ shop/web shop/db:5432
  selvaged policy explain --file deploy/ shop/web shop/db
  selvaged policy explain --file deploy/ shop/web 192.0.2.7:53/UDP
  kubectl get networkpolicies,namespaces,pods -A -o json | selvaged policy explain --file - shop/web [fd00:5::7]:80`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := q.check(); err != nil {
				return err
			}
			var p status.PolicyQuery
			p.Source = args[0]
			p.Destination, p.Port = connection.SplitDestination(args[1])
			verdicts, err := askPolicies(cmd, q, files, f,
				func(w connection.World) ([]status.PolicyVerdict, error) { return policyview.Answer(w, p) },
				func(ctx context.Context, c *status.Client) ([]status.PolicyVerdict, error) {
					return c.PolicyVerdict(ctx, p)
				})
			if err != nil {
				return err
			}
			return showVerdict(cmd, q, verdicts)
		},
		ValidArgsFunction: completePods(&f, &files),
	}
	fileFlag(c, &files)
	f.flags(c.Flags())
	q.flags(c)
	return c
}

// showVerdict shows verdicts. The error is the exit code.
func showVerdict(cmd *cobra.Command, q query, verdicts []status.PolicyVerdict) error {
	err := show(cmd.OutOrStdout(), q, verdicts, func(w io.Writer, all []status.PolicyVerdict) {
		showVerdicts(w, styleFor(w), all)
	})
	if err != nil {
		return err
	}
	if !allowed(verdicts) {
		return Exit{ExitDegraded}
	}
	return nil
}

// allowed reports whether verdicts allow all ports that they are about, in each family.
func allowed(verdicts []status.PolicyVerdict) bool {
	return !slices.ContainsFunc(verdicts, func(v status.PolicyVerdict) bool {
		return slices.ContainsFunc(v.Ports, func(p status.PortVerdict) bool { return !p.Allowed })
	})
}

// completePods offers the pods of the files.
func completePods(f *policyFiles, files *[]string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) > 1 || len(*files) == 0 || slices.Contains(*files, "-") {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c.SetErr(io.Discard)
		cluster, _, err := f.read(c, *files)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for p := range maps.Values(cluster.Pods) {
			words = append(words, p.Namespace+"/"+p.Name)
		}
		slices.Sort(words)
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
