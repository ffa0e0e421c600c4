package k8slab

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// Pod is a pod with an agent in it.
type Pod struct {
	Name, UID string
	Addrs     [2]netip.Addr // by family
	Node      *Node
	Restarts  int
}

func (p *Pod) String() string { return p.Name + " on " + p.Node.Name() }

// identity is what may not change of a pod.
func (p *Pod) identity() string {
	return fmt.Sprintf("%s (%s, %s, %d restarts)", p, p.UID, p.Addrs, p.Restarts)
}

// echo is where its agent answers.
func (p *Pod) echo(f subnet.Family) netip.AddrPort {
	return netip.AddrPortFrom(p.Addrs[f], agent.EchoPort)
}

// setAddrs takes what Kubernetes says, which has one address of each of the cluster's families, in their order.
func (p *Pod) setAddrs(families []subnet.Family, texts []string) error {
	if len(texts) != len(families) {
		return fmt.Errorf("pod %s has the addresses %q, want one of each of %v", p.Name, texts, families)
	}
	for i, f := range families {
		a, err := netip.ParseAddr(texts[i])
		if err != nil {
			return fmt.Errorf("pod %s: %w", p.Name, err)
		}
		if subnet.FamilyOf(a) != f {
			return fmt.Errorf("pod %s: address %d is %s, want one of %s", p.Name, i+1, a, f)
		}
		p.Addrs[f] = a
	}
	return nil
}

// do has its agent do something. It is asked from its own node, so that it is not the overlay by which it is asked.
func (p *Pod) do(ctx context.Context, r agent.Request) (agent.Answer, error) {
	conn, err := p.Node.dial(ctx, "tcp", netip.AddrPortFrom(p.Addrs[p.Node.cluster.families()[0]], agent.ControlPort))
	if err != nil {
		return agent.Answer{}, fmt.Errorf("%s: %w", p, err)
	}
	defer conn.Close()
	a, err := agent.Do(conn, r)
	if err != nil {
		return a, fmt.Errorf("%s: %w", p, err)
	}
	return a, nil
}

// call has it call an address, and returns what was answered.
func (p *Pod) call(ctx context.Context, network agent.Network, to netip.AddrPort) (agent.Echo, error) {
	a, err := p.do(ctx, agent.Request{Call: &agent.Call{Network: network, To: to}})
	if err != nil {
		return agent.Echo{}, fmt.Errorf("%s -> %s %s: %w", p, network, to, err)
	}
	return *a.Echo, nil
}

func (n *Node) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return dialFrom(ctx, n.Do, network, to)
}

func dialFrom(ctx context.Context, do func(func() error) error, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = do(func() error {
		conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

// callFrom calls an address from a place that has no agent: a node, or the outside.
func callFrom(ctx context.Context, do func(func() error) error, network agent.Network, to netip.AddrPort) (agent.Echo, error) {
	conn, err := dialFrom(ctx, do, string(network), to)
	if err != nil {
		return agent.Echo{}, err
	}
	defer conn.Close()
	return agent.Ask(conn, network)
}

// podsOf reads the running pods that a selector matches, those of one node beside each other.
func (c *Cluster) podsOf(ctx context.Context, namespace, selector string) ([]*Pod, error) {
	var list podList
	if err := c.get(ctx, &list, "pods", "-n", namespace, "-l", selector); err != nil {
		return nil, err
	}
	var pods []*Pod
	for _, i := range list.Items {
		if i.Metadata.Deleted != nil || ready(i.Status.Conditions).Status != "True" {
			continue
		}
		p := &Pod{Name: i.Metadata.Name, UID: i.Metadata.UID, Node: c.node(i.Spec.NodeName)}
		if p.Node == nil {
			return nil, fmt.Errorf("pod %s is on an unknown node, %q", p.Name, i.Spec.NodeName)
		}
		var addrs []string
		for _, a := range i.Status.PodIPs {
			addrs = append(addrs, a.IP)
		}
		if err := p.setAddrs(c.families(), addrs); err != nil {
			return nil, err
		}
		for _, s := range i.Status.ContainerStatuses {
			p.Restarts += s.RestartCount
		}
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b *Pod) int {
		return cmp.Or(cmp.Compare(a.Node.Name(), b.Node.Name()), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

func (c *Cluster) node(name string) *Node {
	for _, n := range c.nodes {
		if n.Name() == name {
			return n
		}
	}
	return nil
}
