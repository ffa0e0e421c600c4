package policytest

import (
	"fmt"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// NamespaceName returns the name of a namespace.
func (r Random) NamespaceName() string { return Pick(r, "red", "blue", "green") }

// Namespace returns a namespace.
func (r Random) Namespace() policy.Namespace {
	return policy.Namespace{Name: r.NamespaceName(), Labels: r.Labels()}
}

// Pod returns a pod with up to one address of each family, which another pod may have as well.
func (r Random) Pod() policy.Pod {
	p := policy.Pod{
		UID: fmt.Sprint("uid", r.IntN(16)), Namespace: r.NamespaceName(), Node: Pick(r, "n1", "n1", "n2", ""),
		Labels: r.Labels(), Since: r.Int64N(3), Deleting: r.Chance(10), HostNetwork: r.Chance(5), Ended: r.Chance(10),
	}
	p.Name = p.UID
	for _, f := range subnet.Families() {
		if r.Chance(85) {
			p.Addresses[f] = r.Address(f)
		}
	}
	var ports []policy.NamedPort
	for range 1 + r.IntN(3) {
		ports = append(ports, policy.NamedPort{Name: Pick(r, "http", "dns"), Protocol: r.protocol(),
			Number: Pick[uint16](r, 80, 81, 82)})
	}
	p.Ports = policy.MakePorts(ports)
	if r.Options.Pod != nil {
		r.Options.Pod(r, &p)
	}
	return p
}

func (r Random) protocol() policy.Protocol {
	return Pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP)
}

// group returns a group of pods, half of the time in a namespace unless that is empty.
func (r Random) group(namespace string) policy.Group {
	g := policy.Group{Pods: r.Selector()}
	if g.Namespaces = r.Selector(); namespace != "" && r.Chance(50) {
		g.Namespace, g.Namespaces = namespace, policy.Selector{}
	}
	return g
}

func (r Random) peer(namespace string, blocks bool) policy.Peer {
	if !blocks || !r.Chance(40) {
		return policy.Peer{Group: r.group(namespace)}
	}
	f := Pick(r, subnet.IPv4, subnet.IPv6)
	p := policy.Peer{Block: r.Block(f)}
	if namespace != "" || !r.API { // a cluster policy's networks have no exceptions
		for range r.IntN(4) {
			p.Except = append(p.Except, r.Block(f))
		}
	}
	return p
}

// port returns a port of a NetworkPolicy, or of a cluster policy if the namespace is empty. A named port of a cluster
// policy may be of any protocol.
func (r Random) port(namespace string) policy.Port {
	p := policy.Port{Protocol: r.protocol(), First: Pick[uint16](r, 79, 80, 81)}
	switch Pick(r, 0, 0, 1, 2, 3) {
	case 0:
		p.First, p.Name = 0, Pick(r, "http", "dns")
		if namespace == "" && (r.API || r.Chance(50)) {
			p.Protocol = 0
		}
	case 1:
		p.Last = p.First + uint16(r.IntN(3))
	case 2:
		p.Last = p.First
	case 3:
		if p.First, p.Last = 0, 0xffff; namespace == "" && r.API {
			p.First = 1
		}
	}
	return p
}

// match returns what a rule of a NetworkPolicy matches, or of a cluster policy if the namespace is empty.
func (r Random) match(namespace string, d policy.Direction) (m policy.Match) {
	m.AnyPeer, m.AnyPort = r.Chance(15), r.Chance(15)
	peers, ports := Pick(r, 0, 1, 1, 2, 3), Pick(r, 0, 1, 1, 2, 3)
	if r.API {
		m.AnyPeer = (m.AnyPeer || peers == 0) && namespace != ""
		peers, ports = max(peers, 1), max(ports, 1)
	}
	for range peers {
		m.Peers = append(m.Peers, r.peer(namespace, namespace != "" || d == policy.Egress || !r.API))
	}
	for range ports {
		m.Ports = append(m.Ports, r.port(namespace))
	}
	if m.AnyPeer {
		m.Peers = nil
	}
	if m.AnyPort {
		m.Ports = nil
	}
	return m
}

// Policy returns a NetworkPolicy.
func (r Random) Policy() policy.Policy {
	p := policy.Policy{Namespace: r.NamespaceName(), Name: fmt.Sprint("p", r.IntN(4)),
		Isolates: [2]bool{r.Chance(70), r.Chance(60)}}
	if r.API && p.Isolates == [2]bool{} {
		p.Isolates[r.IntN(2)] = true
	}
	p.Subject = policy.Group{Namespace: p.Namespace, Pods: r.Selector()}
	for _, d := range policy.Directions() {
		for range r.IntN(4) {
			p.Rules[d] = append(p.Rules[d], r.match(p.Namespace, d))
		}
	}
	return p
}

// ClusterPolicy returns a ClusterNetworkPolicy.
func (r Random) ClusterPolicy() policy.ClusterPolicy {
	p := policy.ClusterPolicy{Name: fmt.Sprint("c", r.IntN(4)), Tier: Pick(r, policy.Admin, policy.Baseline),
		Priority: r.Int32N(3), Subject: r.group(""), NoSubject: r.Chance(5) && !r.API}
	for _, d := range policy.Directions() {
		for range r.IntN(4) {
			action := Pick(r, policy.Accept, policy.Deny, policy.Pass)
			p.Rules[d] = append(p.Rules[d], policy.ClusterRule{Action: action, Match: r.match("", d)})
		}
	}
	return p
}
