package connectivity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// DefaultNamespace is created for a test, and removed.
const DefaultNamespace = "selvage-connectivity-test"

// Kubernetes is a cluster of Kubernetes with selvage in it, as kubectl reaches it. The pods of the test are in a
// namespace of its own.
type Kubernetes struct {
	Kubectl   kubectl.Client
	Namespace string        // is created and removed; there must be none of this name
	Image     string        // of selvage, for the pods; empty: that of the daemons
	Keep      bool          // the pods and the namespace stay
	Timeout   time.Duration // for pods to become ready, for a rolling restart, and for the removal
	Tell      func(string)  // reports the next step

	daemons    []kubectl.Daemon
	containers map[string]kubectl.Container // of places, by their names
	created    bool
}

// Start implements [Cluster]. A namespace of that name is an error: another test runs, or was killed.
func (k *Kubernetes) Start(ctx context.Context) (ends Ends, check Check, err error) {
	if k.daemons, err = k.Kubectl.Daemons(ctx); err != nil {
		return ends, check, err
	}
	k.Image, k.containers = cmp.Or(k.Image, k.daemons[0].Image), map[string]kubectl.Container{}
	k.Tell("creating two pods on each node, in namespace " + k.Namespace)
	if err := k.create(ctx); err != nil {
		return ends, check, err
	}
	began := time.Now()
	first, second, check, err := k.wait(ctx)
	check.Took = time.Since(began)
	if err != nil || len(first) == 0 {
		return ends, check, err
	}
	ends, err = k.learn(ctx, first, second)
	return ends, check, err
}

func (k *Kubernetes) create(ctx context.Context) error {
	if err := k.Kubectl.Create(ctx, namespace(k.Namespace)); err != nil {
		var there struct{ Metadata struct{ Name string } }
		if k.Kubectl.Get(ctx, &there, "namespace", k.Namespace) == nil {
			return fmt.Errorf("namespace %s exists: another test runs, or was killed; in the second case, remove it "+
				"by kubectl delete namespace %s", k.Namespace, k.Namespace)
		}
		return err
	}
	k.created = true
	return k.Kubectl.Apply(ctx, workload(k.Namespace, k.Image)...)
}

// wait waits for the pods, and returns the two of each node that has both ready.
func (k *Kubernetes) wait(ctx context.Context) (first, second []Place, check Check, err error) {
	for _, name := range []string{firstName, secondName} {
		_, err := k.Kubectl.Output(ctx, "rollout", "status", "-n", k.Namespace, "daemonset/"+name,
			"--timeout="+k.Timeout.String())
		if ctx.Err() != nil {
			return nil, nil, check, err
		}
		if err != nil {
			break // the pods say why
		}
	}
	var list podList
	if err := k.Kubectl.Get(ctx, &list, "pods", "-n", k.Namespace); err != nil {
		return nil, nil, check, err
	}
	first, second, check = pair(list.parse())
	for _, p := range append(slices.Clone(first), second...) {
		k.containers[p.Name] = kubectl.Container{Namespace: k.Namespace, Pod: p.Name, Name: container}
	}
	if check.Probes == 0 {
		err = errors.New("no pod of the test was created: does the cluster have a node of Linux?")
	}
	return first, second, check, err
}

// learn reads what can be called from the pods that are ready.
func (k *Kubernetes) learn(ctx context.Context, first, second []Place) (e Ends, err error) {
	e = Ends{First: first, Second: second, Families: familiesOf(append(slices.Clone(first), second...))}
	if len(e.Families) == 0 {
		return e, errors.New("the pods of the test have no address of one family in common")
	}
	for _, p := range first {
		d, err := kubectl.On(k.daemons, p.Node)
		if err != nil {
			return e, err
		}
		e.Daemons = append(e.Daemons, Place{Name: p.Node, Node: p.Node})
		k.containers[p.Node] = d.Container
	}
	var nodes nodeList
	if err := k.Kubectl.Get(ctx, &nodes, "nodes"); err != nil {
		return e, err
	}
	e.Nodes, e.NodePorts = nodes.of(first)
	var own, api struct {
		Spec struct {
			ClusterIPs []netip.Addr
			Ports      []struct{ Port uint16 }
		}
	}
	if err := k.Kubectl.Get(ctx, &own, "service", "-n", k.Namespace, serviceName); err != nil {
		return e, err
	}
	for _, a := range own.Spec.ClusterIPs {
		e.Service[subnet.FamilyOf(a)] = a
	}
	if err := k.Kubectl.Get(ctx, &api, "service", "-n", "default", "kubernetes"); err != nil {
		return e, err
	}
	var slicesOf endpointSlices
	err = k.Kubectl.Get(ctx, &slicesOf, "endpointslices", "-n", "default",
		"-l", "kubernetes.io/service-name=kubernetes")
	if err != nil {
		return e, err
	}
	e.APIServers = slicesOf.parse(e.Families)
	if a := api.Spec; len(a.ClusterIPs) > 0 && len(a.Ports) > 0 &&
		slices.Contains(e.Families, subnet.FamilyOf(a.ClusterIPs[0])) {
		e.APIService = netip.AddrPortFrom(a.ClusterIPs[0], a.Ports[0].Port)
	}
	return e, nil
}

// Probe implements [Cluster]: it runs selvaged's hidden command in a pod of the test or in a daemon's.
func (k *Kubernetes) Probe(ctx context.Context, at Place, in io.Reader, out, problems io.Writer) error {
	return k.Kubectl.Run(ctx, in, out, problems,
		k.containers[at.Name].Exec(kubectl.DaemonPath, "connectivity-test", "probe")...)
}

// Lacks implements [Cluster].
func (k *Kubernetes) Lacks(ctx context.Context, ends Ends, what Feature) (why string, err error) {
	switch what {
	case NameService:
		return k.lacksDNS(ctx)
	case Enforcement:
		return k.unenforced(ctx, ends), nil
	case Restarting:
		if len(k.sets()) == 0 {
			return "the daemons' pods are of no DaemonSet", nil
		}
	}
	return "", nil
}

// lacksDNS looks for a Service of a DNS server, as kubeadm, k3s and the clouds name it.
func (k *Kubernetes) lacksDNS(ctx context.Context) (why string, err error) {
	var list struct{ Items []struct{} }
	err = k.Kubectl.Get(ctx, &list, "services", "-n", "kube-system", "-l", "k8s-app=kube-dns")
	if err == nil && len(list.Items) == 0 {
		why = "the cluster has no Service k8s-app=kube-dns in kube-system"
	}
	return why, err
}

// unenforced says of which daemon it is known that it enforces no policies, or of which nothing is known.
func (k *Kubernetes) unenforced(ctx context.Context, ends Ends) (why string) {
	for _, d := range ends.Daemons {
		var s status.Status
		var out strings.Builder
		// The exit code says whether the node is ready, which is not the question.
		ask := k.containers[d.Name].Exec(kubectl.DaemonPath, "status", "-o", "json")
		err := k.Kubectl.Run(ctx, nil, &out, nil, ask...)
		if json.Unmarshal([]byte(out.String()), &s) != nil {
			return fmt.Sprintf("the daemon of node %s does not say whether it enforces policies: %v", d.Node, err)
		}
		if s.Enforcement == nil {
			return fmt.Sprintf("the daemon of node %s enforces no network policies (--network-policy)", d.Node)
		}
	}
	return ""
}

// ApplyPolicies implements [Cluster].
func (k *Kubernetes) ApplyPolicies(ctx context.Context) error {
	return k.Kubectl.Apply(ctx, policies(k.Namespace)...)
}

// DeletePolicies implements [Cluster].
func (k *Kubernetes) DeletePolicies(ctx context.Context) error {
	_, err := k.Kubectl.Output(ctx, "delete", "networkpolicies", "--all", "-n", k.Namespace)
	return err
}

// Restart implements [Cluster]: the DaemonSets of all daemons are restarted.
func (k *Kubernetes) Restart(ctx context.Context) error {
	for name, namespace := range k.sets() {
		what := "daemonset/" + name
		if _, err := k.Kubectl.Output(ctx, "rollout", "restart", "-n", namespace, what); err != nil {
			return err
		}
		_, err := k.Kubectl.Output(ctx, "rollout", "status", "-n", namespace, what, "--timeout="+k.Timeout.String())
		if err != nil {
			return err
		}
	}
	return nil
}

// sets returns the namespaces of the daemons' DaemonSets, by their names.
func (k *Kubernetes) sets() map[string]string {
	sets := map[string]string{}
	for _, d := range k.daemons {
		if d.Set != "" {
			sets[d.Set] = d.Namespace
		}
	}
	return sets
}

// Remove implements [Cluster]: it removes the namespace, and waits until it is gone.
func (k *Kubernetes) Remove(ctx context.Context) error {
	if k.Keep || !k.created {
		return nil
	}
	k.Tell("removing namespace " + k.Namespace)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.Timeout)
	defer cancel()
	_, err := k.Kubectl.Output(ctx, "delete", "namespace", k.Namespace, "--ignore-not-found")
	if err != nil {
		return fmt.Errorf("namespace %s: %w", k.Namespace, err)
	}
	return nil
}
