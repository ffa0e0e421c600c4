package k8slab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// Ports of the services in workload.yaml, on every node.
const (
	nodePort      = 30070 // leads to all pods
	nodePortLocal = 30071 // leads to those of that node, and shows them who calls
	servicePort   = 80
)

// networks are by what a service is called.
func networks() []agent.Network { return []agent.Network{agent.UDP, agent.TCP} }

// services has kube-proxies take the place of those that there are, with a mode, and calls all services from everywhere.
func services(mode string) func(context.Context, *suite) ([]string, error) {
	return func(ctx context.Context, s *suite) ([]string, error) {
		start := time.Now()
		for _, n := range s.nodes {
			if n.proxy != nil {
				if err := n.stopProxy(ctx); err != nil {
					return nil, err
				}
			}
			if err := n.startProxy(mode); err != nil {
				return nil, err
			}
		}
		made := 0
		for _, f := range s.families() {
			calls := &caller{suite: s, family: f}
			if err := calls.all(ctx); err != nil {
				return nil, err
			}
			made += calls.made
		}
		return []string{
			fmt.Sprintf("%d calls by UDP and TCP in %.1fs, all answered, and by every pod of a service:", made, time.Since(start).Seconds()),
			"cluster IPs from pods and nodes; node ports from outside, nodes and pods; the apiserver's service; a pod's own service (hairpin)",
			"source addresses: a pod's own at another pod's cluster IP; the bridge's at its own; the outside's with externalTrafficPolicy: Local, else a node's",
		}, nil
	}
}

// caller calls in one family, and counts the calls.
type caller struct {
	*suite
	family subnet.Family
	made   int
}

// from is where a call comes from: do calls once, and seen says what is wrong with the source address that was seen.
type from struct {
	name string
	do   func(ctx context.Context, network agent.Network, to netip.AddrPort) (agent.Echo, error)
}

func (p *Pod) from() from { return from{p.String(), p.call} }

func placeOf(name string, do func(func() error) error) from {
	return from{name, func(ctx context.Context, network agent.Network, to netip.AddrPort) (agent.Echo, error) {
		return callFrom(ctx, do, network, to)
	}}
}

func (n *Node) from() from { return placeOf(n.Name(), n.Do) }

func (c *caller) all(ctx context.Context) error {
	web, err := c.clusterIP(ctx, "web", c.family)
	if err != nil {
		return err
	}
	alone, err := c.clusterIP(ctx, "alone", c.family)
	if err != nil {
		return err
	}
	for _, p := range append([]*Pod{c.alone}, c.pods...) {
		// Of the service's pods, the caller may be one: then its packets come back to it, with the bridge's address.
		seen := func(e agent.Echo) error {
			if e.By == p.Name {
				return wantSource(e, p.Node.ownAddrs(c.family)...)
			}
			return wantSource(e, p.Addrs[c.family])
		}
		if err := c.everybody(ctx, p.from(), web, c.pods, seen); err != nil {
			return err
		}
		if err := c.everybody(ctx, p.from(), alone, []*Pod{c.alone}, seen); err != nil {
			return err
		}
		if err := c.apiserver(ctx, p); err != nil {
			return err
		}
	}
	anything := func(agent.Echo) error { return nil } // what the node chooses
	for _, n := range c.nodes {
		if err := c.everybody(ctx, n.from(), web, c.pods, func(e agent.Echo) error { return wantSource(e, n.ownAddrs(c.family)...) }); err != nil {
			return err
		}
		at := netip.AddrPortFrom(n.Addr(c.family), nodePort)
		outside := placeOf("outside", c.lab.Outside().Do)
		if err := c.everybody(ctx, outside, at, c.pods, func(e agent.Echo) error { return wantSource(e, n.ownAddrs(c.family)...) }); err != nil {
			return err
		}
		local := netip.AddrPortFrom(n.Addr(c.family), nodePortLocal)
		here := slices.DeleteFunc(slices.Clone(c.pods), func(p *Pod) bool { return p.Node != n })
		err := c.everybody(ctx, outside, local, here, func(e agent.Echo) error { return wantSource(e, c.lab.Outside().Addr(c.family)) })
		if err != nil {
			return err
		}
		for _, other := range c.nodes {
			if err := errors.Join(c.everybody(ctx, other.from(), at, c.pods, anything),
				c.everybody(ctx, c.pods[perNode*slices.Index(c.nodes, other)].from(), at, c.pods, anything)); err != nil {
				return err
			}
		}
	}
	return nil
}

// everybody calls an address, by each network, until each of the pods has answered. Once one has, no call may fail.
func (c *caller) everybody(ctx context.Context, f from, to netip.AddrPort, pods []*Pod, seen func(agent.Echo) error) error {
	for _, network := range networks() {
		missing := map[string]bool{}
		for _, p := range pods {
			missing[p.Name] = true
		}
		once := func() error {
			echo, err := f.do(ctx, network, to)
			if err == nil {
				delete(missing, echo.By)
				c.made++
				if wrong := seen(echo); wrong != nil {
					return fmt.Errorf("%w: %s: %w", errStop, echo.By, wrong)
				}
			}
			return err
		}
		// kube-proxy takes its time to set its rules.
		err := c.eventually(ctx, "the service", once)
		const enough = 300 // the chance that one of six is never chosen is below 1 in 10^22
		for i := 0; err == nil && len(missing) > 0; i++ {
			if err = once(); err == nil && i == enough {
				err = fmt.Errorf("never answered: %v", missing)
			}
		}
		if err != nil {
			return fmt.Errorf("%s -> %s %s: %w", f.name, network, to, err)
		}
	}
	return nil
}

// apiserver has a pod connect to the apiserver by its service, as what runs in a cluster does. It has one cluster IP, whatever
// the others have.
func (c *caller) apiserver(ctx context.Context, p *Pod) error {
	if c.family != c.families()[0] {
		return nil
	}
	to := netip.MustParsePrefix(serviceNetworks()[c.family]).Addr().Next() // the first of the network
	_, err := p.call(ctx, agent.Connect, netip.AddrPortFrom(to, 443))
	c.made++
	return err
}

// clusterIP is a service's, in a family: it has one of each.
func (c *Cluster) clusterIP(ctx context.Context, name string, f subnet.Family) (netip.AddrPort, error) {
	var service struct {
		Spec struct{ ClusterIPs []netip.Addr }
	}
	if err := c.get(ctx, &service, "service", name); err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range service.Spec.ClusterIPs {
		if subnet.FamilyOf(a) == f {
			return netip.AddrPortFrom(a, servicePort), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("the service %s has the cluster IPs %v, and none of %s", name, service.Spec.ClusterIPs, f)
}

// wantSource says what is wrong with a source address that a pod saw.
func wantSource(e agent.Echo, want ...netip.Addr) error {
	if slices.Contains(want, e.Seen) {
		return nil
	}
	return fmt.Errorf("the source address seen is %s, want one of %v", e.Seen, want)
}

// ownAddrs are the addresses that a node has of its own subnet: the overlay device's and the bridge's.
func (n *Node) ownAddrs(f subnet.Family) []netip.Addr {
	file, err := n.Subnet()
	if err != nil {
		return nil
	}
	return []netip.Addr{file.Subnets[f].Masked().Addr(), file.Subnets[f].Addr()}
}
