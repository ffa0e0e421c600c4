package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/network/node/policyview"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy/connection"
	"github.com/selvage-net/selvage/network/policy/manifest"
)

// Connection explains a connection between two pods, nodes or addresses.
type Connection struct {
	Source      End `json:"source"`
	Destination End `json:"destination"`
	// Policies are the verdicts of network policies, by family; none: one of the ends is a node.
	Policies []status.PolicyVerdict `json:"policies,omitempty"`
	Paths    []Path                 `json:"paths"`
}

// End is an end of a connection.
type End struct {
	Name      string       `json:"name"`           // such as shop/web-1
	Node      string       `json:"node,omitempty"` // on which it is; empty: it is an address outside
	Addresses []netip.Addr `json:"addresses"`
	pod       bool
}

// String returns the end's name, and its node's.
func (e End) String() string {
	if e.Node == "" || e.Node == e.Name {
		return e.Name
	}
	return e.Name + " on " + e.Node
}

// Path is how a node reaches an address.
type Path struct {
	Node        string              `json:"node"`
	To          netip.Addr          `json:"to"`
	Explanation *status.Explanation `json:"explanation,omitempty"` // nil: Error says why
	Error       string              `json:"error,omitempty"`       // for people
}

// OK reports whether nothing is in the way of the connection.
func (c Connection) OK() bool {
	for _, p := range c.Paths {
		if p.Explanation == nil || !p.Explanation.OK {
			return false
		}
	}
	return allowed(c.Policies)
}

// explain explains a connection.
func (p *plugin) explain() *cobra.Command {
	var q query
	c := &cobra.Command{
		Use:   "explain SRC DST[:PORT]",
		Short: "Explain whether a connection is possible, and which way it takes",
		Long: `explain says what network policies decide about a connection, by the objects in the API server, and how
the nodes of both ends reach the other end: there and back.

SRC and DST are each a pod, as NAME or NAMESPACE/NAME, a node, or an IP address. PORT is such as 80, 53/UDP or the name
of a port of the destination. Without it, explain says for which ports the connection is allowed. Whether selvage
enforces the policies, kubectl selvage status says.

It also needs the rights to read nodes, namespaces and network policies.

Exit codes: 0 the connection is possible, 2 policies deny it, or a path is not in sync, 1 any other error.`,
		Example: `  kubectl selvage explain web-1 db-0:5432
  kubectl selvage explain shop/web-1 node7
  kubectl selvage explain -n shop web-1 10.5.29.7:53/UDP -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := q.check(); err != nil {
				return err
			}
			answer, err := p.connection(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), q, answer, showConnection); err != nil {
				return err
			}
			if !answer.OK() {
				return Exit{ExitDegraded}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&p.namespace, "namespace", "n", "default", "namespace of pods that are given by name only")
	q.outputFlag(c)
	return c
}

func (p *plugin) connection(ctx context.Context, source, destination string) (c Connection, err error) {
	tool := p.tool.client()
	daemons, err := tool.Daemons(ctx)
	if err != nil {
		return c, err
	}
	to, port := connection.SplitDestination(destination)
	if c.Source, err = p.end(ctx, tool, source); err != nil {
		return c, err
	}
	if c.Destination, err = p.end(ctx, tool, to); err != nil {
		return c, err
	}
	if c.Source.pod || c.Destination.pod {
		if c.Policies, err = verdicts(ctx, tool, c.Source, c.Destination, port); err != nil {
			return c, err
		}
	}
	ends := []End{c.Source, c.Destination}
	for i, from := range ends {
		other := ends[1-i]
		if from.Node == "" || from.Node == other.Node {
			continue
		}
		for _, a := range other.Addresses {
			if slices.ContainsFunc(from.Addresses, func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
				c.Paths = append(c.Paths, explainFrom(ctx, tool, daemons, from.Node, a))
			}
		}
	}
	return c, nil
}

// explainFrom asks the daemon of a node how it reaches an address.
func explainFrom(
	ctx context.Context, tool kubectl.Client, daemons []kubectl.Daemon, node string, to netip.Addr,
) (p Path) {
	p.Node, p.To = node, to
	d, err := kubectl.On(daemons, node)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	var out strings.Builder
	err = tool.Run(ctx, nil, &out, nil, d.Exec(podArgs("explain", to.String(), "-o", "json")...)...)
	var e status.Explanation
	if json.Unmarshal([]byte(out.String()), &e) == nil { // its exit code says whether the path is in sync
		p.Explanation = &e
	} else if err != nil {
		p.Error = err.Error()
	} else {
		p.Error = "the daemon's answer cannot be read"
	}
	return p
}

// end returns what a word stands for: an address, a pod or a node.
func (p *plugin) end(ctx context.Context, tool kubectl.Client, word string) (e End, err error) {
	if a, err := netip.ParseAddr(word); err == nil {
		return p.endAt(ctx, tool, a)
	}
	namespace, name, ok := strings.Cut(word, "/")
	if !ok {
		namespace, name = p.namespace, word
	}
	var found ends
	if err := tool.Get(ctx, &found, "pods", "-n", namespace, "--field-selector=metadata.name="+name); err != nil {
		return e, err
	}
	if len(found.Items) > 0 {
		return found.pod()
	}
	if ok {
		return e, fmt.Errorf("there is no pod %s", word)
	}
	if err := tool.Get(ctx, &found, "nodes", "--field-selector=metadata.name="+word); err != nil {
		return e, err
	}
	if len(found.Items) > 0 {
		return found.node(), nil
	}
	return e, fmt.Errorf("%q is no IP address, no pod of namespace %s and no node", word, namespace)
}

// ends is what is read of a list of pods or nodes.
type ends struct {
	Items []struct {
		Metadata struct{ Namespace, Name string }
		Spec     struct{ NodeName string }
		Status   struct {
			PodIPs    []struct{ IP netip.Addr }
			Addresses []struct{ Type, Address string }
		}
	}
}

// pod returns the first pod of the list. A pod without an address is an error.
func (l ends) pod() (e End, err error) {
	p := l.Items[0]
	e = End{Name: p.Metadata.Namespace + "/" + p.Metadata.Name, Node: p.Spec.NodeName, pod: true}
	for _, ip := range p.Status.PodIPs {
		e.Addresses = append(e.Addresses, ip.IP)
	}
	if e.Node == "" || len(e.Addresses) == 0 {
		return e, fmt.Errorf("pod %s has no address yet", e.Name)
	}
	return e, nil
}

// node returns the first node of the list.
func (l ends) node() (e End) {
	n := l.Items[0]
	e = End{Name: n.Metadata.Name, Node: n.Metadata.Name}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
			e.Addresses = append(e.Addresses, ip)
		}
	}
	return e
}

// endAt returns the end that has an address: a pod, or something outside.
func (p *plugin) endAt(ctx context.Context, tool kubectl.Client, a netip.Addr) (e End, err error) {
	e = End{Name: a.String(), Addresses: []netip.Addr{a}}
	var found struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Spec     struct {
				NodeName    string
				HostNetwork bool
			}
		}
	}
	err = tool.Get(ctx, &found, "pods", "--all-namespaces", "--field-selector=status.podIP="+a.String())
	if err != nil {
		return e, err
	}
	for _, i := range found.Items {
		e.Node = i.Spec.NodeName
		if !i.Spec.HostNetwork {
			e.Name, e.pod = i.Metadata.Namespace+"/"+i.Metadata.Name, true
			break
		}
	}
	return e, nil
}

// verdicts says what the policies in the API server decide.
func verdicts(
	ctx context.Context, tool kubectl.Client, from, to End, port string,
) ([]status.PolicyVerdict, error) {
	kinds := "networkpolicies,namespaces,pods"
	const crd = "clusternetworkpolicies.policy.networking.k8s.io"
	if out, err := tool.Output(ctx, "get", "crd", crd, "--ignore-not-found", "-o", "name"); err == nil && out != "" {
		kinds += "," + crd
	}
	objects, err := tool.Output(ctx, "get", kinds, "--all-namespaces", "-o", "json")
	if err != nil {
		return nil, err
	}
	documents, err := manifest.Split("the API server", []byte(objects))
	if err != nil {
		return nil, err
	}
	cluster := manifest.New(manifest.Options{Namespace: "default"})
	for _, d := range documents {
		if err := cluster.Add(d); err != nil {
			return nil, err
		}
	}
	if err := cluster.Complete(); err != nil {
		return nil, err
	}
	return policyview.Answer(worldOf(cluster), status.PolicyQuery{
		Source: from.policyEnd(), Destination: to.policyEnd(), Port: port,
	})
}

// policyEnd names the end as policies' answers do.
func (e End) policyEnd() string {
	if e.pod || len(e.Addresses) == 0 {
		return e.Name
	}
	return e.Addresses[0].String()
}

func showConnection(w io.Writer, c Connection) {
	st := styleFor(w)
	if len(c.Policies) > 0 {
		fmt.Fprintln(w, st.bold("network policies:"))
		showVerdicts(w, st, c.Policies)
		fmt.Fprintln(w)
	}
	if len(c.Paths) == 0 {
		switch {
		case c.Source.Node != "" && c.Source.Node == c.Destination.Node:
			fmt.Fprintf(w, "Both ends are on %s: the overlay has no part in it.\n", c.Source.Node)
		default:
			fmt.Fprintf(w, "%s and %s have no address of one family in common.\n", c.Source, c.Destination)
		}
	}
	for _, p := range c.Paths {
		end := c.Destination
		if slices.Contains(c.Source.Addresses, p.To) {
			end = c.Source
		}
		fmt.Fprintf(w, "%s\n", st.bold(fmt.Sprintf("from %s to %s (%s):", p.Node, p.To, end)))
		if p.Explanation == nil {
			fmt.Fprintln(w, st.bad(p.Error))
			continue
		}
		showExplanation(w, st, *p.Explanation)
	}
}
