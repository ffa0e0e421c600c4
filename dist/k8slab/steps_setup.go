package k8slab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

//go:embed workload.yaml
var workload string

// Where the DaemonSet is, and by what its pods are known.
const (
	daemons     = "selvage"
	daemonSetOf = "daemonset/selvage"
	daemonLabel = "app.kubernetes.io/name=selvage"
)

// perNode is how many of the Deployment's pods there are a node.
const perNode = 2

// networkConfig leaves the choice of the packet filter to the nodes, or not.
func (c *Cluster) networkConfig(nftables lab.NFTables) string {
	return lab.NetworkConfig(c.families(), "", nftables)
}

// notReady waits until every node is there and says for what it waits.
func notReady(ctx context.Context, s *suite) ([]string, error) {
	var list nodeList
	err := s.eventually(ctx, "the nodes", func() error {
		if err := errors.Join(s.ended(), s.get(ctx, &list, "nodes")); err != nil {
			return err
		}
		if len(list.Items) != len(s.nodes) {
			return fmt.Errorf("there are %d nodes, want %d", len(list.Items), len(s.nodes))
		}
		for _, n := range list.Items {
			r := ready(n.Status.Conditions)
			if r.Status != "False" || !strings.Contains(r.Message, "cni plugin not initialized") {
				return fmt.Errorf("%s: ready is %+v, want it not to be for want of a CNI plugin", n.Metadata.Name, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.before = map[*Node][]string{}
	for _, n := range s.nodes {
		if s.before[n], err = nodeState(ctx, n); err != nil {
			return nil, err
		}
	}
	info := list.Items[0].Status.NodeInfo
	return []string{fmt.Sprintf("kubelet %s, %s: %s", info.KubeletVersion, info.ContainerRuntimeVersion, ready(list.Items[0].Status.Conditions).Message)}, nil
}

// daemonSet applies the manifest, and nothing else.
func daemonSet(ctx context.Context, s *suite) ([]string, error) {
	if err := s.prepareStore(ctx); err != nil {
		return nil, err
	}
	took, err := s.install(ctx, s.manifest, daemons, daemonSetOf)
	if err != nil {
		return nil, err
	}
	found := []string{took}
	for _, n := range s.nodes {
		mode, err := s.filterMode(ctx, n)
		if err != nil {
			return found, err
		}
		file, err := n.Subnet()
		if err != nil {
			return found, err
		}
		found = append(found, fmt.Sprintf("%s: %s, MTU %d, %s", n.Name(),
			joined(s.families(), func(f subnet.Family) netip.Prefix { return file.Subnets[f].Masked() }), file.MTU, mode))
	}
	return found, nil
}

// install applies the manifest of a DaemonSet that makes the nodes ready, and waits for that.
func (s *suite) install(ctx context.Context, manifest, namespace, set string) (string, error) {
	start := time.Now()
	if err := s.apply(ctx, manifest); err != nil {
		return "", err
	}
	if err := s.rollout(ctx, namespace, set); err != nil {
		return "", err
	}
	rolled := time.Since(start)
	if _, err := s.kubectl(ctx, "wait", "--for=condition=Ready", "nodes", "--all", timeout()); err != nil {
		return "", err
	}
	return fmt.Sprintf("from kubectl apply to its pods ready %.1fs, nodes ready %.1fs", rolled.Seconds(),
		time.Since(start).Seconds()), nil
}

// prepareStore does what is to be done before the manifest is applied. With the leases in etcd, the network config is
// there. With the leases in the Kubernetes API, it is in the manifest, and a kube-proxy on each node leads the daemons
// to the API server.
func (s *suite) prepareStore(ctx context.Context) error {
	if s.options.Store == subnet.StoreEtcd {
		return s.putConfig(ctx, lab.NodesChoose)
	}
	for _, n := range s.nodes {
		if err := n.startProxy("iptables"); err != nil {
			return err
		}
	}
	return nil
}

// rendered has the apiserver check the chart's objects with every value set, as far as that goes without storing them.
func rendered(ctx context.Context, s *suite) ([]string, error) {
	out, err := s.kubectl(ctx, "apply", "--dry-run=server", "--validate=strict", "-f", s.options.Rendered)
	return strings.Split(strings.TrimSpace(out), "\n"), err
}

// deploy runs the workload.
func deploy(ctx context.Context, s *suite) ([]string, error) {
	start := time.Now()
	if err := s.apply(ctx, s.workload()); err != nil {
		return nil, err
	}
	for _, name := range []string{"deployment/web", "deployment/alone"} {
		if err := s.rollout(ctx, "default", name); err != nil {
			return nil, err
		}
	}
	took := time.Since(start)
	wide, err := s.kubectl(ctx, "get", "pods", "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,ADDRESSES:.status.podIPs[*].ip")
	if err != nil {
		return nil, err
	}
	found := append([]string{fmt.Sprintf("from kubectl apply to pods ready %.1fs", took.Seconds())}, strings.Split(strings.TrimSpace(wide), "\n")...)
	if s.pods, err = s.podsOf(ctx, "default", "app=web"); err != nil {
		return found, err
	}
	alone, err := s.podsOf(ctx, "default", "app=alone")
	if err != nil {
		return found, err
	}
	if len(s.pods) != perNode*len(s.nodes) || len(alone) != 1 {
		return found, fmt.Errorf("%d and %d pods run, want %d and 1", len(s.pods), len(alone), perNode*len(s.nodes))
	}
	s.alone = alone[0]
	for i, p := range append(alone, s.pods...) {
		if i > 0 && s.pods[i-1].Node != s.nodes[(i-1)/perNode] {
			return found, fmt.Errorf("the pods are not spread over the nodes: %v", s.pods)
		}
		if err := p.checkAddrs(); err != nil {
			return found, err
		}
	}
	return found, nil
}

// workload is the text with what hangs on the cluster.
func (c *Cluster) workload() string {
	policy := "SingleStack"
	if len(c.families()) > 1 {
		policy = "RequireDualStack"
	}
	return strings.NewReplacer("PODS", strconv.Itoa(perNode*len(c.nodes)), "FAMILY_POLICY", policy).Replace(workload)
}

// checkAddrs wants a pod's addresses to be of its node's subnets.
func (p *Pod) checkAddrs() error {
	file, err := p.Node.Subnet()
	if err != nil {
		return err
	}
	for _, f := range p.Node.cluster.families() {
		if own := file.Subnets[f].Masked(); !own.Contains(p.Addrs[f]) {
			return fmt.Errorf("%s has %s, want an address of %s", p, p.Addrs[f], own)
		}
	}
	return nil
}

// reach calls every pod from every other, from every node and by its host port, in each family, without any kube-proxy.
func reach(ctx context.Context, s *suite) ([]string, error) {
	calls := 0
	for _, f := range s.families() {
		made, err := s.reachIn(ctx, f)
		if err != nil {
			return nil, err
		}
		calls += made
	}
	if err := s.leave(ctx); err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%d calls by UDP and TCP; pods saw each other's own addresses, and the outside's at a host port;", calls+len(s.pods)*len(s.families())),
		"outside, they were seen with their nodes' addresses",
	}, nil
}

func (s *suite) reachIn(ctx context.Context, f subnet.Family) (calls int, err error) {
	outside := s.lab.Outside()
	port := netip.AddrPortFrom(s.alone.Node.Addr(f), 8070)
	for _, network := range networks() {
		for _, to := range s.pods {
			for _, from := range s.pods {
				if from == to {
					continue
				}
				echo, err := from.call(ctx, network, to.echo(f))
				if want := (agent.Echo{Seen: from.Addrs[f], By: to.Name}); err == nil && echo != want {
					err = fmt.Errorf("%s -> %s: %s answered, want %s", from, to, echo, want)
				}
				if err != nil {
					return calls, err
				}
				calls++
			}
			for _, n := range s.nodes {
				if _, err := callFrom(ctx, n.Do, network, to.echo(f)); err != nil {
					return calls, fmt.Errorf("%s -> %s: %w", n.Name(), to, err)
				}
				calls++
			}
		}
		echo, err := callFrom(ctx, outside.Do, network, port)
		if want := (agent.Echo{Seen: outside.Addr(f), By: s.alone.Name}); err == nil && echo != want {
			err = fmt.Errorf("%s answered, want %s", echo, want)
		}
		if err != nil {
			return calls, fmt.Errorf("outside -> host port %s: %w", port, err)
		}
		calls++
	}
	return calls, nil
}

// leave calls the outside from every pod: there its node's address is to be seen.
func (s *suite) leave(ctx context.Context) error {
	for _, p := range s.pods {
		for _, f := range s.families() {
			echo, err := p.call(ctx, "udp", s.lab.Outside().Echo(f))
			if err == nil {
				err = wantSource(echo, p.Node.Addr(f))
			}
			if err != nil {
				return fmt.Errorf("%s -> outside: %w", p, err)
			}
		}
	}
	return nil
}
