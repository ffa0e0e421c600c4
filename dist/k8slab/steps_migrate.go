package k8slab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/containerd/cri"
)

// Migration are the steps from kube-flannel to selvage, back, and to selvage again, as Documentation/migration.md has
// them, for a cluster with that many nodes.
func Migration(nodes int) []Step {
	steps := []Step{
		{Name: "without a network no node is ready", run: notReady},
		{Name: "kube-flannel makes nodes ready", run: kubeFlannel},
		{Name: "pods have addresses of their nodes' subnets", run: deploy},
		{Name: "pods reach each other by their addresses", run: reach},
		{Name: "streams between the nodes' pods", run: stream},
		{Name: "kube-flannel bound to a label", run: watchedOnce(flannelBound)},
		{Name: "selvage applied, bound to a label", run: watchedOnce(selvageBound)},
	}
	each := func(name string, run func(*suite, context.Context, *Node) ([]string, error)) {
		for i := range nodes {
			steps = append(steps, Step{Name: fmt.Sprintf("node%d: %s", i+1, name), run: watchedOnce(
				func(ctx context.Context, s *suite) ([]string, error) { return run(s, ctx, s.nodes[i]) },
			)})
		}
	}
	each("from flannel to selvage", (*suite).toSelvage)
	steps = append(steps, Step{Name: "selvage's CNI plugin in place of flannel's", run: watchedOnce(otherPlugin)})
	each("back to flannel", (*suite).toFlannel)
	steps = append(steps,
		Step{Name: "selvage removed", run: watchedOnce(selvageRemoved)},
		Step{Name: "selvage applied again, bound to a label", run: watchedOnce(selvageBound)},
	)
	each("to selvage again", (*suite).toSelvage)
	return append(steps,
		Step{Name: "kube-flannel removed", run: watchedOnce(flannelRemoved)},
		Step{Name: "all that was sent", run: sent},
		Step{Name: "all pods deleted", run: deleted},
	)
}

// product is flannel or selvage.
type product struct {
	name      string // also the value of the nodes' label "network", and a part of the names of its packet filter rules
	namespace string
	selector  string // of its pods
}

func ofFlannel() product { return product{"flannel", flannels, flannelLabel} }
func ofSelvage() product { return product{"selvage", daemons, daemonLabel} }

// kubeFlannel applies flannel's manifest, with flannel's images and the reference CNI plugins on all nodes: flannel
// expects these there, as the package kubernetes-cni installs them.
func kubeFlannel(ctx context.Context, s *suite) ([]string, error) {
	manifest, err := s.flannelManifest()
	if err != nil {
		return nil, err
	}
	archives, err := s.packFlannel(ctx, manifest)
	if err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		for _, archive := range archives {
			if err := n.Runtime.Import(ctx, archive); err != nil {
				return nil, err
			}
		}
		plugins := os.DirFS(filepath.Join(s.options.Bin, "cni"))
		if err := n.Do(func() error { return os.CopyFS(cri.BinDir, plugins) }); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name(), err)
		}
		if _, err := n.selvaged(ctx, "cleanup"); err != nil { // what the lab's own daemon has left
			return nil, err
		}
	}
	if err := s.prepareStore(ctx); err != nil {
		return nil, err
	}
	took, err := s.install(ctx, manifest, flannels, flannelSetOf)
	if err != nil {
		return nil, err
	}
	found := []string{took}
	for _, n := range s.nodes {
		id, err := s.nodeIdentity(ctx, n)
		if err != nil {
			return found, err
		}
		found = append(found, n.Name()+": "+id)
	}
	return found, nil
}

// selvaged runs a command of it on the node, as an administrator with a copy of it does there.
func (n *Node) selvaged(ctx context.Context, args ...string) (string, error) {
	argv := append([]string{filepath.Join(n.cluster.options.Bin, "selvaged")}, args...)
	out, err := n.Output(ctx, argv...)
	if err != nil {
		err = fmt.Errorf("%s: selvaged %s: %w: %s", n.Name(), strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// flannelBound labels all nodes and binds kube-flannel to the label. None of its pods may be replaced for that.
func flannelBound(ctx context.Context, s *suite) ([]string, error) {
	before, err := s.podsOf(ctx, flannels, flannelLabel)
	if err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "label", "nodes", "--all", "network=flannel"); err != nil {
		return nil, err
	}
	const patch = `{"spec":{"updateStrategy":{"type":"OnDelete"},` +
		`"template":{"spec":{"nodeSelector":{"network":"flannel"}}}}}`
	if _, err := s.kubectl(ctx, "-n", flannels, "patch", flannelSetOf, "-p", patch); err != nil {
		return nil, err
	}
	if err := s.scheduled(ctx, flannels, flannelSetOf, len(s.nodes)); err != nil {
		return nil, err
	}
	now, err := s.podsOf(ctx, flannels, flannelLabel)
	if err == nil && !slices.EqualFunc(now, before, func(a, b *Pod) bool { return a.identity() == b.identity() }) {
		err = fmt.Errorf("kube-flannel's pods are %q, were %q", identities(now), identities(before))
	}
	return []string{"none of its pods was replaced"}, err
}

// scheduled waits until a DaemonSet's controller has seen its last change, and wants it to run that many pods.
func (s *suite) scheduled(ctx context.Context, namespace, set string, want int) error {
	return s.eventually(ctx, set, func() error {
		var now struct {
			Metadata struct{ Generation int }
			Status   struct{ ObservedGeneration, DesiredNumberScheduled, NumberReady int }
		}
		if err := s.get(ctx, &now, "-n", namespace, set); err != nil {
			return err
		}
		if d := now.Status; d.ObservedGeneration != now.Metadata.Generation || d.DesiredNumberScheduled != want ||
			d.NumberReady != want {
			return fmt.Errorf("it is %+v, want %d pods", now, want)
		}
		return nil
	})
}

// selvageBound applies selvage's manifest with flannel's network config, for nodes with a label that none has.
func selvageBound(ctx context.Context, s *suite) ([]string, error) {
	config, err := s.kubectl(ctx, "-n", flannels, "get", "configmap", "kube-flannel-cfg",
		"-o", `jsonpath={.data.net-conf\.json}`)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, []byte(config)); err != nil {
		return nil, fmt.Errorf("flannel's network config: %w", err)
	}
	if s.manifest, err = withConfig(s.manifest, line.String()); err != nil {
		return nil, err
	}
	bound, err := withSelector(s.manifest)
	if err != nil {
		return nil, err
	}
	if err := s.apply(ctx, bound); err != nil {
		return nil, err
	}
	return []string{"with flannel's network config: " + line.String()}, s.scheduled(ctx, daemons, daemonSetOf, 0)
}

// withSelector binds the manifest's DaemonSet to the label of nodes that run selvage.
func withSelector(manifest string) (string, error) {
	const from = "      nodeSelector:\n        kubernetes.io/os: linux\n"
	if n := strings.Count(manifest, from); n != 1 {
		return "", fmt.Errorf("want one nodeSelector for linux, and there are %d", n)
	}
	return strings.Replace(manifest, from, from+"        network: selvage\n", 1), nil
}

// toSelvage has a node run selvage in place of flannel.
func (s *suite) toSelvage(ctx context.Context, n *Node) ([]string, error) {
	took, err := s.move(ctx, n, ofFlannel(), ofSelvage(), func() error { return nil })
	if err != nil {
		return nil, err
	}
	s.moved = append(s.moved, n)
	o, err := s.nodeObject(ctx, n.Name())
	if err == nil && o.Metadata.Annotations["selvage.io/lease"] == "" {
		err = errors.New("its Node has no annotation selvage.io/lease")
	}
	if err == nil {
		err = s.checked(ctx, n)
	}
	if err != nil {
		return []string{took}, fmt.Errorf("%s: %w", n.Name(), err)
	}
	return s.mixed(ctx, took)
}

// toFlannel has a node run flannel again. A pod that selvage's CNI plugin has attached there is detached by flannel's,
// whose configuration is the first again, and nothing of it may be left.
func (s *suite) toFlannel(ctx context.Context, n *Node) ([]string, error) {
	before, err := n.records()
	if err != nil {
		return nil, err
	}
	if _, err := s.addNewPods(ctx); err != nil {
		return nil, err
	}
	attached, err := n.records()
	if err == nil && attached != before+1 {
		err = fmt.Errorf("%s has %d records of attachments, had %d, want one more: its new pod is to be attached by "+
			"selvage's plugin", n.Name(), attached, before)
	}
	if err != nil {
		return nil, err
	}
	took, err := s.move(ctx, n, ofSelvage(), ofFlannel(), func() error {
		_, err := n.selvaged(ctx, "cleanup", "--rules")
		return err
	})
	if err != nil {
		return nil, err
	}
	s.moved = slices.DeleteFunc(s.moved, func(m *Node) bool { return m == n })
	if err := s.removeNewPods(ctx); err != nil {
		return []string{took}, err
	}
	// Only selvage's plugin removes the record.
	if left, err := n.records(); err != nil || left != attached {
		return []string{took}, errors.Join(err, fmt.Errorf("%s has %d records of attachments, want %d as before: its "+
			"new pod is to be detached by flannel's plugin", n.Name(), left, attached))
	}
	return s.mixed(ctx, took, "a pod that selvage's plugin had attached was detached by flannel's plugin completely")
}

// selvageRemoved removes selvage from a cluster that runs flannel on all nodes again.
func selvageRemoved(ctx context.Context, s *suite) ([]string, error) {
	if _, err := s.kubectlWith(ctx, s.manifest, "delete", "-f", "-"); err != nil {
		return nil, err
	}
	if err := s.scheduled(ctx, flannels, flannelSetOf, len(s.nodes)); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if err := n.rulesOf(ctx, ofFlannel(), ofSelvage()); err != nil {
			return nil, err
		}
	}
	return s.mixed(ctx)
}

// move labels a node, waits until the pod of the one product has ended there and that of the other one is ready, and
// does what is left to do. The node has to keep its identity, and to exchange the packet filter's rules.
func (s *suite) move(ctx context.Context, n *Node, from, to product, finish func() error) (string, error) {
	before, err := s.nodeIdentity(ctx, n)
	if err == nil {
		err = n.rulesOf(ctx, from, to)
	}
	if err != nil {
		return "", err
	}
	start := time.Now()
	if _, err := s.kubectl(ctx, "label", "node", n.Name(), "network="+to.name, "--overwrite"); err != nil {
		return "", err
	}
	var ended, ready time.Duration
	err = s.eventually(ctx, "the pods of "+n.Name(), func() error {
		left, err := s.podNames(ctx, from, n)
		if err != nil {
			return err
		}
		if len(left) == 0 && ended == 0 {
			ended = time.Since(start)
		}
		pods, err := s.podsOf(ctx, to.namespace, to.selector)
		if err != nil {
			return err
		}
		if ready == 0 && slices.ContainsFunc(pods, func(p *Pod) bool { return p.Node == n }) {
			ready = time.Since(start)
		}
		if ended == 0 || ready == 0 {
			return fmt.Errorf("%s's are %q, and ready of %s's are %v", from.name, left, to.name, pods)
		}
		return nil
	})
	if err == nil {
		err = finish()
	}
	if err == nil {
		err = s.eventually(ctx, "the rules", func() error { return n.rulesOf(ctx, to, from) })
	}
	if err != nil {
		return "", err
	}
	after, err := s.nodeIdentity(ctx, n)
	if err == nil && after != before {
		err = fmt.Errorf("%s was %s; it is %s", n.Name(), before, after)
	}
	return fmt.Sprintf("%s's pod ended after %.1fs, %s's was ready after %.1fs", from.name, ended.Seconds(), to.name,
		ready.Seconds()), err
}

// otherPlugin has runtimes use selvage's CNI plugin. A pod that flannel's plugin has attached is detached by selvage's.
func otherPlugin(ctx context.Context, s *suite) ([]string, error) {
	by, err := s.addNewPods(ctx)
	if err == nil && by != "flannel's plugin" {
		err = fmt.Errorf("new pods were attached by %s, want flannel's as long as its configuration is the first", by)
	}
	if err != nil {
		return nil, err
	}
	if err := s.removeConflist(); err != nil {
		return nil, err
	}
	if err := s.removeNewPods(ctx); err != nil {
		return nil, err
	}
	if by, err = s.addNewPods(ctx); err == nil && by != "selvage's plugin" {
		err = fmt.Errorf("new pods were attached by %s, want selvage's", by)
	}
	if err != nil {
		return nil, err
	}
	seen := []string{"pods that flannel's had attached were detached by it; new ones were attached by it"}
	return seen, s.removeNewPods(ctx)
}

// removeConflist removes flannel's network configuration from all nodes, so that selvage's is the first.
func (s *suite) removeConflist() error {
	for _, n := range s.nodes {
		if err := n.Do(func() error { return os.Remove("/etc/cni/net.d/10-flannel.conflist") }); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
	}
	return nil
}

// flannelRemoved removes kube-flannel, what binds selvage to a label, and the labels.
func flannelRemoved(ctx context.Context, s *suite) ([]string, error) {
	before, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"delete", "namespace", flannels}, {"delete", "clusterrole,clusterrolebinding", "flannel"},
	} {
		if _, err := s.kubectl(ctx, args...); err != nil {
			return nil, err
		}
	}
	if err := s.apply(ctx, s.manifest); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, daemons, daemonSetOf); err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "label", "nodes", "--all", "network-"); err != nil {
		return nil, err
	}
	found, err := s.daemonsReplaced(ctx, before, len(s.nodes))
	if err != nil {
		return found, err
	}
	if err := s.removeConflist(); err != nil {
		return found, err
	}
	return s.mixed(ctx, found...)
}
