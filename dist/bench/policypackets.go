package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
)

const (
	// otherPods is how many pods a node has beside those that are measured.
	otherPods = 100
	// peerGroups is how many groups of pods policies name as peers, groupPods how many pods each has.
	peerGroups, groupPods = 50, 4
	// connectLeast and throughputLeast are the least parts of what it is without policies.
	connectLeast, throughputLeast = 0.95, 0.99
)

// policySetting is a number of policies, of which some select the pod to which connections are made, and the others
// other pods of its node.
type policySetting struct{ policies, selecting int }

func (s policySetting) String() string {
	switch s.selecting {
	case 0:
		if s.policies == 0 {
			return "no policies"
		}
		return fmt.Sprintf("%d policies of other pods", s.policies)
	case s.policies:
		return fmt.Sprintf("%d policies of the pod", s.policies)
	default:
		return fmt.Sprintf("%d policies, %d of the pod", s.policies, s.selecting)
	}
}

// policySettings are from no policies to many, those that the pod has none of before those that are all its own.
func (b *bench) policySettings() []policySetting {
	most := b.Policies
	return []policySetting{{0, 0}, {most / 10, 0}, {most / 10, most / 10}, {most, 0}, {most, most / 100}, {most, most}}
}

// policyNode is a node on which connections are measured.
type policyNode struct {
	*lab.Node
	what   string
	ways   []way // to its server: from a pod on the same bridge, and from one on another node
	server netip.Addr
	others []netip.Addr // pods of the API alone
}

// policyPaths is a lab of nodes that differ in how they enforce policies.
type policyPaths struct {
	bench *bench
	lab   *lab.Lab
	nodes []*policyNode
	peers [][]netip.Addr // pods elsewhere, in groups
	far   netip.Addr
}

// Nodes of policyPaths.
const (
	bySelvage = iota
	byKubeRouter
	withoutPolicies
	bare
	farNode
)

// policyPackets measures connections between pods under policies, beside kube-router's rules and a node without any.
func policyPackets(ctx context.Context, b *bench) (err error) {
	p := &policyPaths{bench: b}
	if p.lab, err = b.policyLab(ctx, farNode+1); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.closeLab(p.lab)) }()
	if err := p.build(ctx); err != nil {
		return err
	}
	before := policySetting{}
	for _, s := range b.policySettings() {
		b.step("  %s", s)
		if err := p.set(ctx, before, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		before = s
		if err := p.measure(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	b.report.note("Connections are made, and all is sent, by one thread for both ends, and the nodes take turns with "+
		"each connection, datagram and piece of 60 kB. Of a turn the median counts: new connections a second are "+
		"those of one CPU. Each node has %d more pods, of which only the API and the rules know. \"no policies\" is "+
		"the same daemon on a node whose pods no policy selects, with bridge-nf-call-iptables = 1 as kubeadm wants it; "+
		"on a bare bridge that is 0.", otherPods)
	return nil
}

// build makes the pods, and tells the API of them.
func (p *policyPaths) build(ctx context.Context) error {
	admin := p.lab.Kube().Server().Admin()
	_, err := admin.Create(ctx, namespacesPath, object{"kind": "Namespace", "apiVersion": "v1",
		"metadata": object{"name": "default", "labels": object{"kubernetes.io/metadata.name": "default"}}})
	if err != nil {
		return err
	}
	pods := fmt.Sprintf(podsPath, "default")
	create := func(name, node string, labels object, address netip.Addr) error {
		_, err := admin.Create(ctx, pods, podObject(name, node, labels, address))
		return err
	}
	// The plugin waits until the API has a pod.
	add := func(n *lab.Node, name string) (e end, err error) {
		labels := object{"name": name}
		if name == "far" || name == "near0" {
			labels["client"] = "yes"
		}
		if err := create(name, n.Name(), labels, netip.Addr{}); err != nil {
			return e, err
		}
		pod, err := p.lab.AddPod(ctx, n, name)
		if err != nil {
			return e, err
		}
		e = end{pod.Do, pod.Addr(ipv4()[0])}
		_, err = admin.Patch(ctx, pods+"/"+name+"/status", object{"status": object{
			"phase": "Running", "podIP": e.addr.String(), "podIPs": []object{{"ip": e.addr.String()}},
		}})
		return e, err
	}
	nodes := p.lab.Nodes()
	far, err := add(nodes[farNode], "far")
	if err != nil {
		return err
	}
	p.far = far.addr
	for i, what := range []string{"selvage", "kube-router's rules", "no policies", "a bare bridge"} {
		n := &policyNode{Node: nodes[i], what: what}
		server, err := add(n.Node, fmt.Sprintf("server%d", i))
		if err != nil {
			return err
		}
		near, err := add(n.Node, fmt.Sprintf("near%d", i))
		if err != nil {
			return err
		}
		n.server, n.ways = server.addr, []way{
			{name: what, from: near, to: server}, {name: what, from: far, to: server},
		}
		first := server.addr.As4()
		for j := range otherPods {
			a := netip.AddrFrom4([4]byte{first[0], first[1], first[2], byte(100 + j)})
			n.others = append(n.others, a)
			name := fmt.Sprintf("other%d-%d", i, j)
			if err := create(name, n.Name(), object{"other": fmt.Sprintf("%d-%d", i, j)}, a); err != nil {
				return err
			}
		}
		if err := n.bridges(i != bare); err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
	}
	for i := range peerGroups {
		var group []netip.Addr
		for j := range groupPods {
			a := podAddress(i*groupPods + j)
			group = append(group, a)
			name := fmt.Sprintf("peer%d-%d", i, j)
			if err := create(name, "elsewhere", object{"peer": fmt.Sprint(i)}, a); err != nil {
				return err
			}
		}
		p.peers = append(p.peers, group)
	}
	return nil
}

// bridges has bridged packets pass the hooks of IP, or not.
func (n *policyNode) bridges(on bool) error {
	value := map[bool]string{true: "1", false: "0"}[on]
	return n.Do(func() error {
		return os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0)
	})
}

// name of policy number i. The clients are peers of the last one alone that selects the server: it is found last.
func (s policySetting) name(i int) string {
	return fmt.Sprintf("p%05d-of-%d-%d", i, s.policies, s.selecting)
}

// client reports whether the clients are peers of policy number i. The first ones select the server.
func (s policySetting) client(i int) bool { return i == s.selecting-1 }

// set replaces the policies of one setting by those of another, on the node with selvage and on that with kube-router's
// rules, and waits until they are in force.
func (p *policyPaths) set(ctx context.Context, before, s policySetting) error {
	admin, path := p.lab.Kube().Server().Admin(), fmt.Sprintf(policiesPath, "default")
	for i := range before.policies {
		if err := admin.DeleteAll(ctx, path+"/"+before.name(i)); err != nil {
			return err
		}
	}
	n, k := p.nodes[bySelvage], p.nodes[byKubeRouter]
	rules := kubeRouter{pods: append([]netip.Addr{k.server, k.ways[0].from.addr}, k.others...), port: testPort}
	for i := range s.policies {
		group, other := i%peerGroups, max(0, i-s.selecting)%otherPods
		from := []object{{"podSelector": matching("peer", fmt.Sprint(group))}}
		subject, policy := matching("other", fmt.Sprintf("%d-%d", bySelvage, other)), ingressPolicy{name: s.name(i)}
		policy.peers, policy.subjects = p.peers[group], []netip.Addr{k.others[other]}
		if i < s.selecting {
			subject, policy.subjects = matching("name", "server0"), []netip.Addr{k.server}
		}
		if s.client(i) {
			from = append(from, object{"podSelector": matching("client", "yes")})
			policy.peers = slices.Concat(policy.peers, []netip.Addr{p.far, k.ways[0].from.addr})
		}
		rules.policies = append(rules.policies, policy)
		_, err := admin.Create(ctx, path, object{
			"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": object{"name": s.name(i)},
			"spec": object{"podSelector": subject, "policyTypes": []string{"Ingress"}, "ingress": []object{{
				"from":  from,
				"ports": []object{{"port": testPort, "protocol": "TCP"}, {"port": testPort, "protocol": "UDP"}},
			}}},
		})
		if err != nil {
			return err
		}
	}
	if err := rules.apply(k.Do); err != nil {
		return err
	}
	// A chain for each policy, and one for each list of policies that a pod has.
	chains := s.policies + min(s.policies-s.selecting, otherPods) + min(s.selecting, 1)
	return awaitPolicies(ctx, n.Node, fmt.Sprintf("%d chains", chains), func(e status.Enforcement) bool {
		return e.Enforcing == (s.policies > 0) && e.Chains == chains
	})
}

// turn measures one way of each node, all of them at the same time.
func (p *policyPaths) turn(number int, into []samples) error {
	ways := p.ways(number)
	for _, n := range p.nodes {
		if err := n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return fmt.Errorf("%s: forget connections: %w", n.what, err)
		}
	}
	for _, x := range []struct {
		metric
		run func([]way, time.Duration) ([][]float64, error)
		of  func(microseconds float64) float64
	}{
		{metric{"Connect", "new TCP connections", "/s"}, connects, func(t float64) float64 { return 1e6 / t }},
		{metric{"RoundTrip", "UDP there and back", "µs"}, datagrams, func(t float64) float64 { return t }},
		{metric{"Throughput", "one TCP flow", "Gbit/s"}, transfers,
			func(t float64) float64 { return 8e-3 * piece / t }},
	} {
		took, err := x.run(ways, p.bench.PolicyTurn)
		if err != nil {
			return fmt.Errorf("%s: %w", x.what, err)
		}
		for i := range p.nodes {
			into[i].add(x.metric, x.of(median(took[i])))
		}
	}
	return nil
}

// ways are those of a number of all nodes.
func (p *policyPaths) ways(number int) (all []way) {
	for _, n := range p.nodes {
		all = append(all, n.ways[number])
	}
	return all
}

// measure measures all ways in turns.
func (p *policyPaths) measure(ctx context.Context, s policySetting) error {
	for i, where := range []string{"one node", "two nodes"} {
		all := make([]samples, len(p.nodes))
		for range p.bench.PolicyTurns {
			if err := p.turn(i, all); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		p.tell(s, where, all)
	}
	return nil
}
