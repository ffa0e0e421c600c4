package k8slab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// nodeState is what a removal of selvage has to leave as it was: files, devices, routes, policy rules, and rules of the
// packet filter that name selvage. kube-proxy's own rules are not compared.
func nodeState(ctx context.Context, n *Node) ([]string, error) {
	const script = `find /etc/cni /opt/cni
find /var/lib/selvage /run/flannel /run/selvage -mindepth 1 2>/dev/null # the kubelet creates the directories
ip -o link show | cut -d : -f 2 | cut -d @ -f 1
ip route show table all | grep -v -e kube -e '^local' -e '^broadcast' -e '^multicast' -e '^anycast'
ip -6 route show table all | grep -v -e kube -e '^local' -e '^multicast' -e '^anycast'
ip rule; ip -6 rule
nft list ruleset | grep -i -e selvage -e flannel || :`
	out, err := n.Output(ctx, "sh", "-c", script)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", n.Name(), err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		before, _, _ := strings.Cut(strings.TrimSpace(line), " expires ") // of a route, in seconds
		lines = append(lines, before)
	}
	return lines, nil
}

// removed removes selvage as Documentation/kubernetes.md has it, and compares the nodes with what they were before.
func removed(ctx context.Context, s *suite) (found []string, err error) {
	path, err := s.pluginPath()
	if err != nil {
		return nil, err
	}
	out, err := s.user(ctx, path, "cleanup", timeout())
	found = strings.Split(strings.TrimSpace(out), "\n")
	if err != nil {
		return found, err
	}
	if _, err := s.kubectlWith(ctx, s.manifest, "delete", "--ignore-not-found", "-f", "-", timeout()); err != nil {
		return found, err
	}
	const kinds = "all,configmaps,serviceaccounts,clusterroles,clusterrolebindings,validatingadmissionpolicies," +
		"validatingadmissionpolicybindings,namespaces"
	left, err := s.kubectl(ctx, "get", kinds, "--all-namespaces", "-l", daemonLabel, "-o", "name")
	if err != nil || strings.TrimSpace(left) != "" {
		return found, errors.Join(err, fmt.Errorf("left in the cluster: %s", left))
	}
	names, err := s.kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name} {.items[*].metadata.annotations}")
	if err != nil || strings.Contains(names, "selvage") || strings.Contains(names, "flannel") {
		return found, errors.Join(err, fmt.Errorf("left at the Nodes: %s", names))
	}
	cleaned := 0
	for _, n := range s.nodes {
		if !slices.Contains(strings.Fields(names), n.Name()) {
			continue // it left the cluster
		}
		cleaned++
		after, failed := nodeState(ctx, n)
		if failed != nil {
			return found, failed
		}
		for _, line := range after {
			if !slices.Contains(s.before[n], line) {
				err = errors.Join(err, fmt.Errorf("%s: left is %q", n.Name(), line))
			}
		}
		for _, line := range s.before[n] {
			if !slices.Contains(after, line) {
				err = errors.Join(err, fmt.Errorf("%s: missing is %q", n.Name(), line))
			}
		}
	}
	if cleaned == 0 {
		err = errors.Join(err, errors.New("no node was compared"))
	}
	return append(found, fmt.Sprintf("%d nodes are as they were before", cleaned)), err
}
