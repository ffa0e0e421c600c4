package enforce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// random makes clusters that are so small that policies, labels and addresses meet often.
type random struct{ *rand.Rand }

func (r random) chance(percent int) bool { return r.IntN(100) < percent }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

func (r random) labels() policy.Labels {
	m := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		if r.chance(70) {
			m[key] = pick(r, "a", "b")
		}
	}
	return policy.MakeLabels(m)
}

func (r random) selector() policy.Selector {
	var list []policy.Requirement
	for range pick(r, 0, 1, 1, 2) {
		q := policy.Requirement{Key: pick(r, "app", "tier"),
			Operator: pick(r, policy.In, policy.In, policy.NotIn, policy.Exists, policy.DoesNotExist)}
		if q.Operator == policy.In || q.Operator == policy.NotIn {
			q.Values = pick(r, []string{"a"}, []string{"b"}, []string{"a", "b"})
		}
		list = append(list, q)
	}
	return policy.MakeSelector(list...)
}

// address returns an address of a pod of this node or another one, or of neither. A pod can be anywhere but at the last
// port, so that there is an address on the bridge that is no pod's.
func (r random) address(f subnet.Family) netip.Addr {
	if r.chance(65) {
		return podAddress(r.IntN(ports), f == subnet.IPv6)
	}
	return r.elsewhere(f)
}

func (r random) elsewhere(f subnet.Family) netip.Addr {
	n := byte(1 + r.IntN(6))
	if f == subnet.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: byte(1 + r.IntN(2)), 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(1 + r.IntN(2)), n})
}

func (r random) block(f subnet.Family) netip.Prefix {
	a := r.address(f)
	p, _ := a.Prefix(a.BitLen() - pick(r, 0, 1, 2, 3, 8, 16, a.BitLen()))
	return p
}

func (r random) namespaceName() string { return pick(r, "red", "blue") }

// pod returns the pod at a port of this node's bridge, or one of another node.
func (r random) pod() policy.Pod {
	i := r.IntN(2*ports - 2)
	p := policy.Pod{UID: fmt.Sprint("uid", i), Name: fmt.Sprint("pod", i), Namespace: r.namespaceName(), Labels: r.labels(),
		Node: "n2", Ended: r.chance(5)}
	for _, f := range subnet.Families() {
		switch {
		case i < ports-1:
			p.Node, p.Addresses[f] = thisNode, podAddress(i, f == subnet.IPv6)
		default:
			p.Addresses[f] = r.elsewhere(f)
		}
		if r.chance(10) {
			p.Addresses[f] = netip.Addr{}
		}
	}
	var named []policy.NamedPort
	for range r.IntN(3) {
		named = append(named, policy.NamedPort{Name: pick(r, "http", "dns"), Protocol: pick(r, policy.TCP, policy.TCP,
			policy.UDP, policy.SCTP), Number: pick[uint16](r, 80, 81, 82)})
	}
	p.Ports = policy.MakePorts(named)
	return p
}

func (r random) group(namespace string) policy.Group {
	g := policy.Group{Pods: r.selector()}
	if g.Namespaces = r.selector(); namespace != "" && r.chance(50) {
		g.Namespace, g.Namespaces = namespace, policy.Selector{}
	}
	return g
}

func (r random) match(namespace string) (m policy.Match) {
	m.AnyPeer, m.AnyPort = r.chance(20), r.chance(30)
	for range pick(r, 0, 1, 1, 2) {
		p := policy.Peer{Group: r.group(namespace)}
		if r.chance(40) {
			f := pick(r, subnet.IPv4, subnet.IPv6)
			p = policy.Peer{Block: r.block(f)}
			for range r.IntN(4) {
				p.Except = append(p.Except, r.block(f))
			}
		}
		m.Peers = append(m.Peers, p)
	}
	for range pick(r, 0, 1, 1, 2, 3) {
		p := policy.Port{Protocol: pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP), First: pick[uint16](r, 79, 80, 81)}
		switch r.IntN(4) {
		case 0:
			p.First, p.Name = 0, pick(r, "http", "dns")
			if namespace == "" && r.chance(50) {
				p.Protocol = 0
			}
		case 1:
			p.Last = p.First + uint16(r.IntN(3))
		case 2:
			p.Last = p.First
		case 3:
			p.First, p.Last = 0, 0xffff
		}
		m.Ports = append(m.Ports, p)
	}
	if m.AnyPeer {
		m.Peers = nil
	}
	if m.AnyPort {
		m.Ports = nil
	}
	return m
}

func (r random) policy() policy.Policy {
	p := policy.Policy{Namespace: r.namespaceName(), Name: fmt.Sprint("p", r.IntN(4)),
		Isolates: [2]bool{r.chance(70), r.chance(60)}}
	p.Subject = policy.Group{Namespace: p.Namespace, Pods: r.selector()}
	for _, d := range policy.Directions() {
		for range r.IntN(4) {
			p.Rules[d] = append(p.Rules[d], r.match(p.Namespace))
		}
	}
	return p
}

func (r random) clusterPolicy() policy.ClusterPolicy {
	p := policy.ClusterPolicy{Name: fmt.Sprint("c", r.IntN(3)), Tier: pick(r, policy.Admin, policy.Baseline),
		Priority: r.Int32N(3), Subject: r.group("")}
	for _, d := range policy.Directions() {
		for range r.IntN(3) {
			action := pick(r, policy.Accept, policy.Deny, policy.Pass)
			p.Rules[d] = append(p.Rules[d], policy.ClusterRule{Action: action, Match: r.match("")})
		}
	}
	return p
}

// step changes an object of a cluster and in an engine.
func (r random) step(c *policy.Cluster, to policy.Objects) {
	remove := r.chance(25)
	switch r.IntN(10) {
	case 0:
		n := policy.Namespace{Name: r.namespaceName(), Labels: r.labels()}
		if remove {
			delete(c.Namespaces, n.Name)
			to.DeleteNamespace(n.Name)
			return
		}
		c.Namespaces[n.Name] = n
		to.SetNamespace(n)
	case 1, 2, 3, 4, 5:
		p := r.pod()
		if remove {
			delete(c.Pods, p.UID)
			to.DeletePod(p.UID)
			return
		}
		c.Pods[p.UID] = &p
		to.SetPod(p)
	case 6, 7, 8:
		p := r.policy()
		if remove {
			delete(c.Policies, p.Key())
			to.DeletePolicy(p.Namespace, p.Name)
			return
		}
		c.Policies[p.Key()] = &p
		to.SetPolicy(p)
	default:
		p := r.clusterPolicy()
		if remove {
			delete(c.ClusterWide, p.Name)
			to.DeleteClusterPolicy(p.Name)
			return
		}
		c.ClusterWide[p.Name] = &p
		to.SetClusterPolicy(p)
	}
}

// packet returns the first packet of a connection, of which one end at least is on this node.
func (r random) packet() (p policy.Packet) {
	f := pick(r, subnet.IPv4, subnet.IPv6)
	p.Source, p.Destination = podAddress(r.IntN(ports), f == subnet.IPv6), r.address(f)
	if r.chance(40) {
		p.Source, p.Destination = p.Destination, p.Source
	}
	p.Protocol = pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP, 1)
	if p.Protocol == 1 && f == subnet.IPv6 {
		p.Protocol, p.ICMPType = policy.ICMPv6, 128
	}
	if p.Protocol.HasPorts() {
		p.Port = pick[uint16](r, 78, 79, 80, 81, 82, 83, 84, 0xffff)
	}
	if p.Protocol == policy.TCP && r.chance(5) {
		p.State = policy.Invalid
	}
	return p
}

func newCluster() *policy.Cluster {
	return &policy.Cluster{Namespaces: map[string]policy.Namespace{}, Pods: map[string]*policy.Pod{},
		Policies: map[string]*policy.Policy{}, ClusterWide: map[string]*policy.ClusterPolicy{}}
}

// fromEnvironment returns a number of the environment, or another one.
func fromEnvironment(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// TestModel drives an engine through random clusters, and compares what packets do in the kernel with what the
// evaluator says. POLICY_CLUSTERS is the number of clusters.
func TestModel(t *testing.T) {
	seed := fromEnvironment("POLICY_SEED", rand.Uint64())
	r := random{rand.New(rand.NewPCG(seed, 3))}
	l := newLab(t)
	e, _ := start(t, Options{})
	var attachments []Attachment
	for i := range ports - 1 {
		attachments = append(attachments, Attachment{UID: "of nobody", ContainerID: fmt.Sprint(i), Interface: portName(i),
			Addresses: [2]netip.Addr{podAddress(i, false), podAddress(i, true)}})
	}
	e.SetAttachments(attachments)
	c := newCluster()
	count, denied := [2]int{}, 0
	for n := range fromEnvironment("POLICY_CLUSTERS", 150) {
		apply(t, e, func(to policy.Objects) {
			for range pick(r, 1, 3, 10) {
				r.step(c, to)
			}
		})
		list := make([]probe, 40)
		for i := range list {
			list[i].Packet = r.packet()
		}
		for i, arrived := range l.send(list) {
			p := list[i].Packet
			v := policy.Judge(c, thisNode, p)
			want := v[policy.Ingress].Allowed && v[policy.Egress].Allowed
			if arrived != want {
				t.Errorf("cluster %d: %+v: it arrived: %t; the evaluator: egress %+v, ingress %+v", n, p, arrived,
					v[policy.Egress], v[policy.Ingress])
			}
			if count[subnet.FamilyOf(p.Source)]++; !want {
				denied++
			}
		}
		if t.Failed() {
			t.Fatalf("repeat with POLICY_SEED=%d", seed)
		}
		l.forget()
	}
	t.Logf("%d packets of IPv4 and %d of IPv6, of which %d are denied; %+v", count[0], count[1], denied, e.Status())
}
