package enforce

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// decode decodes a NetworkPolicy of the namespace red.
func decode(t testing.TB, name, spec string) policy.Policy {
	t.Helper()
	p, err := policy.DecodePolicy([]byte(`{"metadata": {"namespace": "red", "name": "` + name + `"}, "spec": ` + spec + `}`))
	if err != nil || len(p.Problems) > 0 {
		t.Fatal(err, p.Problems)
	}
	return p
}

// podAt returns the pod of this node at a port, in the namespace red.
func podAt(i int, app string) policy.Pod {
	return policy.Pod{
		UID: "uid-" + portName(i), Namespace: "red", Name: portName(i), Node: thisNode,
		Labels:    policy.MakeLabels(map[string]string{"app": app}),
		Addresses: [2]netip.Addr{podAddress(i, false), podAddress(i, true)},
	}
}

const (
	denyAll  = `{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}`
	allowWeb = `{"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [
		{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"protocol": "TCP", "port": 80}]}]}`
)

// webAndClient sets a server at port 0 and a client at port 1, and the policy that lets only clients in.
func webAndClient(t testing.TB) func(policy.Objects) {
	p := decode(t, "web", allowWeb)
	return func(to policy.Objects) {
		to.SetNamespace(policy.Namespace{Name: "red"})
		to.SetPod(podAt(0, "web"))
		to.SetPod(podAt(1, "client"))
		to.SetPod(podAt(2, "other"))
		to.SetPolicy(p)
	}
}

// tcp returns a probe of a new TCP connection between the pods at two ports.
func tcp(from, to int, port uint16) probe {
	return probe{Packet: policy.Packet{Source: podAddress(from, false), Destination: podAddress(to, false), Protocol: policy.TCP,
		Port: port}}
}

// passes checks whether packets arrive, of both families.
func (l *lab) passes(t testing.TB, want bool, list ...probe) {
	t.Helper()
	for _, p := range list {
		six := p
		for _, a := range []*netip.Addr{&six.Source, &six.Destination} {
			for i := range ports {
				if *a == podAddress(i, false) {
					*a = podAddress(i, true)
				}
			}
		}
		both := []probe{p}
		if six.Source.Is6() && six.Destination.Is6() {
			both = append(both, six)
		}
		for i, arrived := range l.send(both) {
			if arrived != want {
				t.Errorf("%+v arrived: %t, want %t", both[i].Packet, arrived, want)
			}
		}
	}
}

// tables returns which of the engine's tables exist.
func tables(t testing.TB) (names []string) {
	t.Helper()
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if family, ours := families()[x.Name]; ours && family == x.Family {
			names = append(names, x.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestInSync: what is in the kernel reads back as it was written, so that nothing is repaired without a reason.
func TestInSync(t *testing.T) {
	newLab(t)
	e, stop := start(t, Options{Reject: true, LogGroup: 7})
	e.SetAttachments([]Attachment{{ContainerID: "c0", Interface: portName(0), Addresses: podAt(0, "").Addresses}})
	apply(t, e, webAndClient(t))
	apply(t, e, func(to policy.Objects) {
		to.SetPolicy(decode(t, "ranges", `{"podSelector": {}, "policyTypes": ["Egress"], "egress": [
			{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]},
			{"ports": [{"protocol": "UDP", "port": "dns"}, {"protocol": "SCTP", "port": 80, "endPort": 90}]}]}`))
		to.SetClusterPolicy(policy.ClusterPolicy{Name: "cluster", Rules: [2][]policy.ClusterRule{policy.Ingress: {
			{Action: policy.Pass, Match: policy.Match{AnyPeer: true, Ports: []policy.Port{{Protocol: policy.TCP, Last: 9}}}},
			{Action: policy.Deny, Match: policy.Match{AnyPeer: true, AnyPort: true}},
		}}})
	})
	isolated := Attachment{ContainerID: "c5", Addresses: [2]netip.Addr{subnet.IPv6: podAddress(5, true)}}
	e.attach(isolated)
	if err := e.Isolate(isolated); err != nil {
		t.Fatal(err)
	}
	stop()
	closed, _ := e.pass.closedNow(desired{}, false)
	for name, want := range map[string]nft.Content{
		Table: e.pass.rules.Content(), ClosedTable: ruleset.Closed(e.pass.common, closed), SourcesTable: e.pass.bound,
	} {
		c, err := nft.Dial()
		if err != nil {
			t.Fatal(err)
		}
		exists, inSync, err := c.TableIn(families()[name], name).Check(want)
		if !exists || !inSync || err != nil {
			t.Errorf("%s: exists: %t, in sync: %t, %v", name, exists, inSync, err)
		}
		c.Close()
	}
}

// TestLevels: tables exist while they are needed.
func TestLevels(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	check := func(what string, want ...string) {
		t.Helper()
		if got := tables(t); !slices.Equal(got, want) {
			t.Errorf("%s: tables %q, want %q", what, got, want)
		}
	}
	to80, to81 := tcp(1, 0, 80), tcp(1, 0, 81)
	apply(t, e, webAndClient(t))
	check("with a policy, and without records of ports", Table)
	e.SetAttachments(nil)
	await(t, e, "the records", func() bool { return e.applied == e.version })
	check("with a policy", Table, SourcesTable)
	if s := e.Status(); !e.Enforcing() || !s.Synced || s.Chains != 2 || s.Elements == 0 || !e.NeedsPeers() {
		t.Errorf("%+v", s)
	}
	l.passes(t, true, to80, tcp(2, 1, 80))
	l.passes(t, false, to81, tcp(2, 0, 80))
	if v := e.Verdict(to81.Packet); v[policy.Ingress].Cause != policy.CauseIsolated || !v[policy.Egress].Allowed {
		t.Errorf("the evaluator: %+v", v)
	}
	apply(t, e, func(to policy.Objects) { to.DeletePolicy("red", "web") })
	check("without one")
	if e.Enforcing() || e.NeedsPeers() {
		t.Errorf("%+v", e.Status())
	}
	l.passes(t, true, to81)
	apply(t, e, func(to policy.Objects) {
		p := decode(t, "nobody", denyAll)
		p.Namespace, p.Subject.Namespace = "green", "green"
		to.SetPolicy(p)
	})
	check("with a policy of another namespace")
}

// TestUnsynced: nothing happens before all lists are complete, whatever their order, and while peers are missing.
func TestUnsynced(t *testing.T) {
	l := newLab(t)
	e, stop := start(t, Options{})
	apply(t, e, webAndClient(t))
	stop()
	l.passes(t, false, tcp(2, 0, 80)) // it stays in force

	e, _ = start(t, Options{})
	seen := func() { // a pass that has seen all so far
		t.Helper()
		isolated := Attachment{ContainerID: "c7", Addresses: podAt(7, "").Addresses}
		e.attach(isolated)
		if err := e.Isolate(isolated); err != nil {
			t.Fatal(err)
		}
		e.Detach(isolated)
	}
	steps := []func(policy.Objects){
		func(policy.Objects) {},
		func(to policy.Objects) { to.SetNamespace(policy.Namespace{Name: "red"}) },
		func(to policy.Objects) { to.SetPod(podAt(0, "web")) },
		func(to policy.Objects) { to.SetPolicy(decode(t, "web", allowWeb)) },
		func(to policy.Objects) { to.SetPod(podAt(1, "client")) },
	}
	for _, step := range steps {
		e.Update(step)
		seen()
		l.passes(t, true, tcp(1, 0, 80))
		l.passes(t, false, tcp(1, 0, 81), tcp(2, 0, 80))
	}
	apply(t, e, func(to policy.Objects) { to.DeletePolicy("red", "web"); to.SetPod(podAt(1, "web")) })
	l.passes(t, true, tcp(1, 0, 81))

	// A policy that names other pods waits for them.
	<-e.PeersChanged()
	e.Update(func(to policy.Objects) { to.SetPolicy(decode(t, "web", allowWeb)) })
	<-e.PeersChanged()
	if !e.NeedsPeers() {
		t.Error("the policy names other pods")
	}
	seen()
	l.passes(t, true, tcp(1, 0, 81))
	apply(t, e, func(to policy.Objects) { to.SetPod(podAt(1, "client")) })
	l.passes(t, true, tcp(1, 0, 80))
	l.passes(t, false, tcp(1, 0, 81))
}

// TestSources: a pod sends from its own addresses alone.
func TestSources(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	borrowed := tcp(1, 0, 80)
	borrowed.from = endName(2)
	l.passes(t, true, borrowed)
	e.SetAttachments([]Attachment{
		{ContainerID: "c1", Interface: portName(1), Addresses: podAt(1, "").Addresses},
		{ContainerID: "c2", Interface: portName(2), Addresses: podAt(2, "").Addresses},
	})
	await(t, e, "the ports in the kernel", func() bool { return e.applied == e.version })
	l.passes(t, false, borrowed)
	l.passes(t, true, tcp(1, 0, 80), tcp(2, 1, 80))
	advertises := probe{from: endName(2), Packet: policy.Packet{Protocol: policy.ICMPv6, ICMPType: 136,
		Source: podAddress(2, true), Destination: podAddress(0, true)}}
	linkLocal := probe{from: endName(2), Packet: policy.Packet{Protocol: policy.UDP, Port: 80,
		Source: netip.MustParseAddr("fe80::1"), Destination: podAddress(1, true)}}
	if got := l.send([]probe{advertises, linkLocal}); !got[0] || got[1] {
		t.Errorf("a neighbour advertisement and a link-local source: %t, want true, false", got)
	}
	e.SetAttachments(nil)
	await(t, e, "no ports in the kernel", func() bool { return e.applied == e.version })
	l.passes(t, true, borrowed)
}
