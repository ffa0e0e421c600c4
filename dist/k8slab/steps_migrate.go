package k8slab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/k8slab/agent"
	"github.com/selvage-net/selvage/subnet"
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

// checked makes the checks of Documentation/migration.md in the pod of a node. Warnings are no failure of doctor's: it
// has one for a network config that asks for iptables, which the image does not have.
func (s *suite) checked(ctx context.Context, n *Node) error {
	pods, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(pods, func(p *Pod) bool { return p.Node == n })
	if i < 0 {
		return errors.New("no daemon runs")
	}
	for _, command := range [][]string{{"status"}, {"peers"}, {"doctor", "--cni-conf-dir="}} {
		argv := []string{"-n", daemons, "exec", pods[i].Name, "-c", "selvaged", "--", "selvaged"}
		out, err := s.kubectl(ctx, append(argv, command...)...)
		if err != nil && !onlyWarnings(command[0], err) {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	return nil
}

// onlyWarnings reports whether an error of kubectl's is doctor's exit code for warnings without failures.
func onlyWarnings(command string, err error) bool {
	var exit *exec.ExitError
	return command == "doctor" && errors.As(err, &exit) && exit.ExitCode() == 3
}

// toFlannel has a node run flannel again. A pod that selvage's CNI plugin has attached there is detached by flannel's,
// whose configuration is the first again, and nothing of it may be left.
func (s *suite) toFlannel(ctx context.Context, n *Node) ([]string, error) {
	before, err := n.records()
	if err != nil {
		return nil, err
	}
	if _, err := s.came(ctx); err != nil {
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
	if err := s.went(ctx); err != nil {
		return []string{took}, err
	}
	// Only selvage's plugin removes the record.
	if left, err := n.records(); err != nil || left != attached {
		return []string{took}, errors.Join(err, fmt.Errorf("%s has %d records of attachments, want %d as before: its "+
			"new pod is to be detached by flannel's plugin", n.Name(), left, attached))
	}
	return s.mixed(ctx, took, "a pod that selvage's plugin had attached was detached by flannel's, and nothing of it is left")
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

// podNames lists the pods of a product on a node, also those that are ending.
func (s *suite) podNames(ctx context.Context, of product, n *Node) (names []string, err error) {
	var list podList
	err = s.get(ctx, &list, "pods", "-n", of.namespace, "-l", of.selector, "--field-selector=spec.nodeName="+n.Name())
	for _, i := range list.Items {
		names = append(names, i.Metadata.Name)
	}
	return names, err
}

// nodeIdentity is what may not change of a node: its Node with the podCIDRs and flannel's annotations, its subnets, and
// the MAC addresses of its devices.
func (s *suite) nodeIdentity(ctx context.Context, n *Node) (string, error) {
	o, err := s.nodeObject(ctx, n.Name())
	if err != nil {
		return "", err
	}
	file, err := n.Subnet()
	if err != nil {
		return "", err
	}
	text := []string{"UID " + o.Metadata.UID, "podCIDRs " + prefixes(o.Spec.PodCIDRs)}
	for _, name := range slices.Sorted(maps.Keys(o.Metadata.Annotations)) {
		if short, ok := strings.CutPrefix(name, prefix); ok {
			text = append(text, short+" "+o.Metadata.Annotations[name])
		}
	}
	for _, f := range s.families() {
		name := [2]string{subnet.IPv4: "flannel.1", subnet.IPv6: "flannel-v6.1"}[f]
		err := n.Do(func() error {
			device, err := net.InterfaceByName(name)
			if err == nil {
				text = append(text, fmt.Sprintf("%s %s with %s", name, device.HardwareAddr, file.Subnets[f]))
			}
			return err
		})
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w", n.Name(), name, err)
		}
	}
	return strings.Join(text, ", "), nil
}

// rulesOf wants the packet filter of a node to have rules of one product, and none of the other, by the names of chains
// and tables.
func (n *Node) rulesOf(ctx context.Context, whose, notWhose product) error {
	rules := ""
	for _, argv := range [][]string{{"nft", "list", "tables"}, {"iptables-save"}, {"ip6tables-save"}} {
		out, err := n.Output(ctx, argv...)
		if err != nil {
			return fmt.Errorf("%s: %v: %w", n.Name(), argv, err)
		}
		rules += strings.ToLower(string(out))
	}
	if !strings.Contains(rules, whose.name) || strings.Contains(rules, notWhose.name) {
		return fmt.Errorf("%s is to have rules of %s, and none of %s:\n%s", n.Name(), whose.name, notWhose.name, rules)
	}
	return nil
}

// mixed wants the cluster to work with flannel on some nodes and selvage on others: the daemons of selvage have all peers,
// and a new pod on each node and those of the other nodes call each other.
func (s *suite) mixed(ctx context.Context, found ...string) ([]string, error) {
	if err := s.peersOf(ctx, s.moved, len(s.nodes)-1); err != nil {
		return found, err
	}
	attached, err := s.came(ctx)
	if err != nil {
		return found, err
	}
	found = append(found, fmt.Sprintf("%d of %d nodes run selvage; a new pod on each node, attached by %s, reached the "+
		"others, and they reached it", len(s.moved), len(s.nodes), attached))
	return found, s.went(ctx)
}

// came makes a pod on each node, and says by which CNI plugins they were attached: selvage's leaves records.
func (s *suite) came(ctx context.Context) (string, error) {
	before, err := s.records()
	if err != nil {
		return "", err
	}
	if err := s.newPods(ctx); err != nil {
		return "", err
	}
	after, err := s.records()
	switch after - before {
	case 0:
		return "flannel's plugin", err
	case len(s.nodes):
		return "selvage's plugin", err
	}
	return "both plugins", err
}

// records counts the records of attachments that selvage's CNI plugin has stored on all nodes.
func (s *suite) records() (sum int, err error) {
	for _, n := range s.nodes {
		count, err := n.records()
		if err != nil {
			return sum, err
		}
		sum += count
	}
	return sum, nil
}

// records counts those of a node.
func (n *Node) records() (int, error) { return n.files("/run/flannel/subnet.env.attachments/*:*") }

// stored counts the attachments of a node of which one of the two CNI plugins has stored what DEL needs.
func (n *Node) stored() (int, error) { return n.files("/var/lib/cni/flannel/*") }

// files counts the files of a node whose names match a pattern.
func (n *Node) files(pattern string) (count int, err error) {
	err = n.Do(func() error {
		files, err := filepath.Glob(pattern)
		count = len(files)
		return err
	})
	return count, err
}

// went removes the new pods, and waits until their nodes keep what the other pods have, and nothing else.
func (s *suite) went(ctx context.Context) error {
	if err := s.later(ctx, 0); err != nil {
		return err
	}
	for _, n := range s.nodes {
		stay := slices.DeleteFunc(append([]*Pod{s.alone}, s.pods...), func(p *Pod) bool { return p.Node != n })
		err := s.eventually(ctx, "the new pod's end on "+n.Name(), func() error {
			addrs, err := n.podAddrs()
			if err != nil {
				return err
			}
			stored, err := n.stored()
			if err == nil && (len(addrs) != len(stay)*len(s.families()) || stored != len(stay)) {
				err = fmt.Errorf("given away are %v, stored are %d attachments, and %d pods stay", addrs, stored, len(stay))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// otherPlugin has runtimes use selvage's CNI plugin. A pod that flannel's plugin has attached is detached by selvage's.
func otherPlugin(ctx context.Context, s *suite) ([]string, error) {
	by, err := s.came(ctx)
	if err == nil && by != "flannel's plugin" {
		err = fmt.Errorf("new pods were attached by %s, want flannel's as long as its configuration is the first", by)
	}
	if err != nil {
		return nil, err
	}
	if err := s.removeConflist(); err != nil {
		return nil, err
	}
	if err := s.went(ctx); err != nil {
		return nil, err
	}
	if by, err = s.came(ctx); err == nil && by != "selvage's plugin" {
		err = fmt.Errorf("new pods were attached by %s, want selvage's", by)
	}
	if err != nil {
		return nil, err
	}
	return []string{"pods that flannel's had attached were detached by it; new ones were attached by it"}, s.went(ctx)
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

// sent says of every stream what it has sent and lost, from its start.
func sent(ctx context.Context, s *suite) (found []string, err error) {
	if _, _, err := s.losses(ctx); err != nil {
		return nil, err
	}
	var sum agent.Losses
	for _, p := range s.streams() {
		for _, f := range s.flows[p] {
			found = append(found, fmt.Sprintf("%s: %s", f.text, f.total))
			sum = sum.Add(f.total)
		}
	}
	if sum.Lost > 0 || sum.Sent == 0 {
		err = fmt.Errorf("%s, want none, and some sent", sum)
	}
	return append(found, sum.String()), err
}
