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

	"github.com/selvage-net/selvage/dist/k8slab/agent"
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

// networkConfig leaves the choice of the packet filter to the nodes, or not: nftables is what stands for it in JSON.
func networkConfig(nftables string) string {
	if nftables != "" {
		nftables = `,"EnableNFTables":` + nftables
	}
	return fmt.Sprintf(`{"Network":%q,"Backend":{"Type":"vxlan"}%s}`, podNetwork, nftables)
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
	info := list.Items[0].Status.NodeInfo
	return []string{fmt.Sprintf("kubelet %s, %s: %s", info.KubeletVersion, info.ContainerRuntimeVersion, ready(list.Items[0].Status.Conditions).Message)}, nil
}

// daemonSet applies the manifest, and nothing else.
func daemonSet(ctx context.Context, s *suite) ([]string, error) {
	start := time.Now()
	if err := errors.Join(s.lab.Etcd().PutConfig(ctx, networkConfig("")), s.apply(ctx, s.manifest)); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, daemons, daemonSetOf); err != nil {
		return nil, err
	}
	rolled := time.Since(start)
	if _, err := s.kubectl(ctx, "wait", "--for=condition=Ready", "nodes", "--all", timeout()); err != nil {
		return nil, err
	}
	found := []string{fmt.Sprintf("from kubectl apply to its pods ready %.1fs, nodes ready %.1fs", rolled.Seconds(), time.Since(start).Seconds())}
	for _, n := range s.nodes {
		mode, err := s.filterMode(ctx, n)
		if err != nil {
			return found, err
		}
		file, err := n.Subnet()
		if err != nil {
			return found, err
		}
		found = append(found, fmt.Sprintf("%s: %s, MTU %d, %s", n.Name(), file.Subnets[subnet.IPv4].Masked(), file.MTU, mode))
	}
	return found, nil
}

// deploy runs the workload.
func deploy(ctx context.Context, s *suite) ([]string, error) {
	start := time.Now()
	if err := s.apply(ctx, strings.Replace(workload, "PODS", strconv.Itoa(perNode*len(s.nodes)), 1)); err != nil {
		return nil, err
	}
	for _, name := range []string{"deployment/web", "deployment/alone"} {
		if err := s.rollout(ctx, "default", name); err != nil {
			return nil, err
		}
	}
	took := time.Since(start)
	wide, err := s.kubectl(ctx, "get", "pods", "-o", "wide")
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
		if err := p.checkAddr(); err != nil {
			return found, err
		}
	}
	return found, nil
}

// checkAddr wants a pod's address to be of its node's subnet.
func (p *Pod) checkAddr() error {
	file, err := p.Node.Subnet()
	if err != nil {
		return err
	}
	if own := file.Subnets[subnet.IPv4].Masked(); !own.Contains(p.Addr) {
		return fmt.Errorf("%s has %s, want an address of %s", p, p.Addr, own)
	}
	return nil
}

// reach calls every pod from every other, from every node and by its host port, without any kube-proxy.
func reach(ctx context.Context, s *suite) ([]string, error) {
	calls := 0
	for _, from := range s.pods {
		for _, to := range s.pods {
			if from == to {
				continue
			}
			for _, network := range []string{"udp", "tcp"} {
				echo, err := from.call(ctx, network, to.echo())
				if want := (agent.Echo{Seen: from.Addr, By: to.Name}); err == nil && echo != want {
					err = fmt.Errorf("%s -> %s: %s answered, want %s", from, to, echo, want)
				}
				if err != nil {
					return nil, err
				}
				calls++
			}
		}
	}
	for _, n := range s.nodes {
		for _, to := range s.pods {
			for _, network := range []string{"udp", "tcp"} {
				if _, err := callFrom(ctx, n.Do, network, to.echo()); err != nil {
					return nil, fmt.Errorf("%s -> %s: %w", n.Name(), to, err)
				}
				calls++
			}
		}
	}
	port := netip.AddrPortFrom(s.alone.Node.Addr(subnet.IPv4), 8070)
	outside := s.lab.Outside()
	for _, network := range []string{"udp", "tcp"} {
		echo, err := callFrom(ctx, outside.Do, network, port)
		if want := (agent.Echo{Seen: outside.Addr(subnet.IPv4), By: s.alone.Name}); err == nil && echo != want {
			err = fmt.Errorf("%s answered, want %s", echo, want)
		}
		if err != nil {
			return nil, fmt.Errorf("outside -> host port %s: %w", port, err)
		}
		calls++
	}
	if err := s.leave(ctx); err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%d calls by UDP and TCP; pods saw each other's own addresses, and the outside's at a host port;", calls+len(s.pods)),
		"outside, they were seen with their nodes' addresses",
	}, nil
}

// leave calls the outside from every pod: there its node's address is to be seen.
func (s *suite) leave(ctx context.Context) error {
	for _, p := range s.pods {
		echo, err := p.call(ctx, "udp", s.lab.Outside().Echo(subnet.IPv4))
		if err == nil {
			err = wantSource(echo, p.Node.Addr(subnet.IPv4))
		}
		if err != nil {
			return fmt.Errorf("%s -> outside: %w", p, err)
		}
	}
	return nil
}
