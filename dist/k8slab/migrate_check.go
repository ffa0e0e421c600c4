package k8slab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// What has to hold in a migration.

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
	attached, err := s.addNewPods(ctx)
	if err != nil {
		return found, err
	}
	found = append(found, fmt.Sprintf("%d of %d nodes run selvage; a new pod on each node, attached by %s, reached the "+
		"others, and they reached it", len(s.moved), len(s.nodes), attached))
	return found, s.removeNewPods(ctx)
}

// addNewPods makes a pod on each node, and says by which CNI plugins they were attached: selvage's leaves records.
func (s *suite) addNewPods(ctx context.Context) (string, error) {
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

// removeNewPods removes the new pods, and waits until their nodes keep what the other pods have, and nothing else.
func (s *suite) removeNewPods(ctx context.Context) error {
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
				err = fmt.Errorf("addresses %v are reserved and %d attachments are stored for %d pods", addrs, stored,
					len(stay))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
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
