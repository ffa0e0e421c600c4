package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/kube"
)

// cleanupLabel marks the pods that clean up nodes.
const cleanupLabel = "selvage.io/cleanup"

// pluginCleanup has the flags of the command.
type pluginCleanup struct {
	*plugin
	force       bool
	annotations string
	timeout     time.Duration
}

// cleanup removes everything that selvage created on all nodes.
func (p *plugin) cleanup() *cobra.Command {
	o := pluginCleanup{plugin: p}
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Stop all daemons, and remove everything that selvage created on the nodes",
		Long: `cleanup prepares the removal of selvage from a Kubernetes cluster: it deletes the daemons' DaemonSet,
runs selvaged cleanup and selvaged install-cni --uninstall on each of their nodes, in pods with the same image and the
same directories, and removes the annotations of the Nodes. Then remove the remaining objects as they were installed:
by kubectl delete --ignore-not-found -f or helm uninstall.

Pods of the overlay lose their connections, and without the CNI plugin they can neither be created nor deleted. So it
refuses while there are any, unless --force is set. Delete them first, or replace them when the next network plugin is
there. Leases in etcd expire by themselves. It needs the rights of a cluster's administrator.

Exit codes: 0 all nodes are clean, 2 a node is not, 1 any other error.`,
		Example: `  kubectl selvage cleanup
  kubectl selvage cleanup --force --timeout 10m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.timeout <= 0 {
				return fmt.Errorf("--timeout: %s, want more than 0", o.timeout)
			}
			prefix, err := kube.ParsePrefix(o.annotations)
			if err != nil {
				return fmt.Errorf("--kube-annotation-prefix: %w", err)
			}
			return o.run(cmd, prefix)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.force, "force", false, "also while pods of the overlay run")
	f.StringVar(&o.annotations, "kube-annotation-prefix", strings.TrimSuffix(kube.DefaultPrefix, "/"),
		"prefix of the Nodes' annotations, as the daemons have it")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long each step may take")
	return c
}

func (o pluginCleanup) run(cmd *cobra.Command, prefix string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	tool := o.tool.client()
	daemons, err := tool.Daemons(ctx)
	if err != nil {
		return err
	}
	namespace, name := daemons[0].Namespace, daemons[0].Set
	if slices.ContainsFunc(daemons, func(d kubectl.Daemon) bool { return d.Set != name || d.Namespace != namespace }) ||
		name == "" {
		return errors.New("the daemons' pods are not of one DaemonSet: remove them, and run selvaged cleanup on " +
			"their nodes")
	}
	if daemons, err = o.present(cmd, tool, daemons); err != nil {
		return err
	}
	if len(daemons) == 0 {
		return errors.New("no node of a daemon's pod is in the cluster")
	}
	if !o.force {
		if err := o.unused(ctx, tool, daemons); err != nil {
			return err
		}
	}
	var set kubectl.Object
	if err := tool.Get(ctx, &set, "daemonset", "-n", namespace, name); err != nil {
		return err
	}
	pods, err := cleanupPods(set, namespace, daemons)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "deleting the DaemonSet %s\n", name)
	wait := "--timeout=" + o.timeout.String()
	_, err = tool.Output(ctx, "delete", "daemonset", "-n", namespace, name, "--cascade=foreground", wait)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cleaning up %s\n", count(len(pods), "node"))
	clean := o.onNodes(ctx, tool, namespace, pods, wait)
	annotations := []string{"annotate", "nodes", "--all"}
	for _, key := range kube.Annotations(prefix) {
		annotations = append(annotations, key+"-")
	}
	if _, err := tool.Output(ctx, annotations...); err != nil {
		return errors.Join(clean, err)
	}
	if clean != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "kubectl selvage:", clean)
		return Exit{ExitDegraded}
	}
	fmt.Fprintln(out, "all nodes are clean; now remove the remaining objects as they were installed, by "+
		"kubectl delete --ignore-not-found -f or helm uninstall")
	return nil
}

// present returns the daemons whose Nodes exist. The pod of a Node that was deleted stays until Kubernetes collects it,
// and on a host that is no longer in the cluster nothing can be run.
func (o pluginCleanup) present(cmd *cobra.Command, tool kubectl.Client, daemons []kubectl.Daemon) (
	[]kubectl.Daemon, error,
) {
	var nodes struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	if err := tool.Get(cmd.Context(), &nodes, "nodes"); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, n := range nodes.Items {
		names[n.Metadata.Name] = true
	}
	return slices.DeleteFunc(daemons, func(d kubectl.Daemon) bool {
		if !names[d.Node] {
			fmt.Fprintf(cmd.ErrOrStderr(), "node %s is no longer in the cluster: if its host still runs, run selvaged "+
				"cleanup there\n", d.Node)
		}
		return !names[d.Node]
	}), nil
}

// cleaning is what is read of a pod that cleans up.
type cleaning struct {
	Metadata struct{ Name string }
	Spec     struct{ NodeName string }
	Status   struct{ Phase string }
}

func (c cleaning) ended() bool { return c.Status.Phase == "Succeeded" || c.Status.Phase == "Failed" }

// onNodes runs the pods that clean up, and removes them. The error names the nodes where they failed, with their logs.
func (o pluginCleanup) onNodes(
	ctx context.Context, tool kubectl.Client, namespace string, pods []kubectl.Object, wait string,
) error {
	if err := tool.Create(ctx, pods...); err != nil {
		return err
	}
	all, err := o.wait(ctx, tool, namespace)
	errs := []error{err}
	there := map[string]bool{}
	for _, p := range all {
		there[p.Spec.NodeName] = true
	}
	for _, p := range pods {
		if spec, _ := p["spec"].(kubectl.Object); err == nil && !there[fmt.Sprint(spec["nodeName"])] {
			errs = append(errs, fmt.Errorf("node %v is not clean: its pod was deleted before it had ended; run "+
				"selvaged cleanup there", spec["nodeName"]))
		}
	}
	for _, p := range all {
		if p.Status.Phase == "Succeeded" {
			continue
		}
		log, err := tool.Output(ctx, "logs", "-n", namespace, p.Metadata.Name, "--all-containers", "--tail=5")
		if err != nil {
			log = err.Error()
		}
		errs = append(errs, fmt.Errorf("node %s is not clean (pod %s is %s): %s",
			p.Spec.NodeName, p.Metadata.Name, p.Status.Phase, strings.TrimSpace(log)))
	}
	_, err = tool.Output(context.WithoutCancel(ctx), "delete", "pods", "-n", namespace, "-l", cleanupLabel, wait)
	return errors.Join(append(errs, err)...)
}

// wait waits until all pods that clean up have ended, but not longer than the timeout, and returns them.
func (o pluginCleanup) wait(ctx context.Context, tool kubectl.Client, namespace string) ([]cleaning, error) {
	end := time.Now().Add(o.timeout)
	for {
		var list struct{ Items []cleaning }
		if err := tool.Get(ctx, &list, "pods", "-n", namespace, "-l", cleanupLabel); err != nil {
			return nil, err
		}
		running := slices.ContainsFunc(list.Items, func(c cleaning) bool { return !c.ended() })
		if !running || time.Now().After(end) {
			return list.Items, nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return list.Items, context.Cause(ctx)
		}
	}
}

// cleanupPods returns a pod for each daemon's node, which cleans the node up: with the daemons' image, directories and
// flags, from the template of their DaemonSet.
func cleanupPods(set kubectl.Object, namespace string, daemons []kubectl.Daemon) (pods []kubectl.Object, err error) {
	var template struct {
		Spec struct {
			Template struct{ Spec json.RawMessage }
		}
	}
	text, err := json.Marshal(set)
	if err == nil {
		err = json.Unmarshal(text, &template)
	}
	if err != nil {
		return nil, err
	}
	for i, d := range daemons {
		var spec kubectl.Object
		if err := json.Unmarshal(template.Spec.Template.Spec, &spec); err != nil {
			return nil, err
		}
		containers, _ := spec["containers"].([]any)
		cleanup := container(containers, kubectl.DaemonContainer)
		plugins := container(containers, "install-cni")
		if cleanup == nil || plugins == nil {
			return nil, errors.New("the DaemonSet does not have the containers selvaged and install-cni: " +
				"run selvaged cleanup and selvaged install-cni --uninstall on the nodes")
		}
		flags, _ := plugins["args"].([]any)
		cleanup["args"] = []any{"cleanup"}
		plugins["args"] = append(slices.DeleteFunc(flags, func(a any) bool { return a == "--watch" }), "--uninstall")
		spec["nodeName"], spec["restartPolicy"] = d.Node, "Never"
		spec["initContainers"], spec["containers"] = []any{cleanup}, []any{plugins}
		pods = append(pods, kubectl.Object{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": kubectl.Object{
				"name": fmt.Sprintf("selvage-cleanup-%d", i), "namespace": namespace,
				"labels": kubectl.Object{cleanupLabel: "true"},
			},
			"spec": spec,
		})
	}
	return pods, nil
}

// container returns a container of a pod, without its probes.
func container(all []any, name string) kubectl.Object {
	for _, x := range all {
		if c, ok := x.(kubectl.Object); ok && c["name"] == name {
			delete(c, "livenessProbe")
			delete(c, "readinessProbe")
			delete(c, "startupProbe")
			return c
		}
	}
	return nil
}

// unused returns an error if there are pods with an address of the overlay.
func (o pluginCleanup) unused(ctx context.Context, tool kubectl.Client, daemons []kubectl.Daemon) error {
	outputs, err := onDaemons(ctx, tool, daemons, "status", "-o", "json")
	if err != nil {
		return err
	}
	var subnets []netip.Prefix
	for _, n := range outputs {
		var s status.Status
		if err := json.Unmarshal(n.text, &s); err != nil {
			return fmt.Errorf("node %s does not report its subnet, so whether there are pods of the overlay is "+
				"not known (--force goes on): %w", n.Node, errors.Join(n.err, err))
		}
		if s.Lease != nil {
			subnets = append(subnets, s.Lease.Subnets...)
		}
	}
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Status   struct {
				Phase string
				PodIP netip.Addr
			}
		}
	}
	if err := tool.Get(ctx, &list, "pods", "--all-namespaces"); err != nil {
		return err
	}
	var names []string
	for _, p := range list.Items {
		inside := func(s netip.Prefix) bool { return s.Masked().Contains(p.Status.PodIP) }
		if p.Status.Phase == "Running" && slices.ContainsFunc(subnets, inside) {
			names = append(names, p.Metadata.Namespace+"/"+p.Metadata.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	const most = 5
	shown := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		shown += ", …"
	}
	return fmt.Errorf("pods of the overlay run (%d): %s; delete them first, or go on with --force", len(names), shown)
}
