package enforce

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
)

const ownPods = 50 // pods of this node, whatever the size of the cluster

// changedPod returns a pod of a cluster with so many namespaces, each of which has pods of five Deployments.
func changedPod(i, namespaces int) policy.Pod {
	p := policy.Pod{
		UID: fmt.Sprintf("6a1f0c1e-0000-4000-8000-%012d", i), Namespace: fmt.Sprint("ns", i%namespaces),
		Name: fmt.Sprint("app-", i), Node: fmt.Sprint("other", i%200),
		Labels:    policy.MakeLabels(map[string]string{"app": fmt.Sprint("app", i/namespaces%5), "tier": "back"}),
		Addresses: [2]netip.Addr{netip.AddrFrom4([4]byte{10, byte(100 + i>>16), byte(i >> 8), byte(i)})},
		Ports:     policy.MakePorts([]policy.NamedPort{{Name: "http", Protocol: policy.TCP, Number: 8080}}),
	}
	if i < ownPods {
		p.Node = thisNode
	}
	return p
}

// changedPolicy returns one of many policies: its peers are another Deployment, a tenth of all pods, and all pods.
func changedPolicy(b *testing.B, i, namespaces int) policy.Policy {
	p, err := policy.DecodePolicy(fmt.Appendf(nil, `{"metadata": {"namespace": "ns%d", "name": "p%d"}, "spec": {
		"podSelector": {"matchLabels": {"app": "app%d"}}, "policyTypes": ["Ingress"], "ingress": [
			{"from": [{"podSelector": {"matchLabels": {"app": "app%d"}}},
				{"namespaceSelector": {"matchLabels": {"team": "t%d"}}, "podSelector": {"matchLabels": {"tier": "back"}}}],
				"ports": [{"port": "http"}, {"port": 443}]},
			{"from": [{"namespaceSelector": {}}], "ports": [{"port": 9090}]}]}}`,
		i%namespaces, i, i/namespaces%5, (i/namespaces+1)%5, i%10))
	if err != nil || len(p.Problems) > 0 {
		b.Fatal(err, p.Problems)
	}
	return p
}

// BenchmarkChange makes one change and waits until the kernel has it, with the opposite change: each counts as half.
func BenchmarkChange(b *testing.B) {
	for _, size := range []struct{ pods, policies, namespaces int }{{100, 10, 10}, {10_000, 1000, 100}} {
		e, stop := start(b, Options{})
		e.Update(func(to policy.Objects) {
			for i := range size.namespaces {
				to.SetNamespace(policy.Namespace{Name: fmt.Sprint("ns", i),
					Labels: policy.MakeLabels(map[string]string{"team": fmt.Sprint("t", i%10)})})
			}
			for i := range size.pods {
				to.SetPod(changedPod(i, size.namespaces))
			}
			for i := range size.policies {
				to.SetPolicy(changedPolicy(b, i, size.namespaces))
			}
		})
		e.SetSynced(true)
		apply := func(f func(policy.Objects)) {
			e.Update(f)
			e.mu.Lock()
			version := e.version
			e.mu.Unlock()
			if !e.applies(b.Context(), version) {
				b.Fatal("the kernel does not have the change")
			}
		}
		apply(func(policy.Objects) {})
		run := func(name string, there, gone func(policy.Objects)) {
			b.Run(fmt.Sprintf("%s/pods=%d/policies=%d", name, size.pods, size.policies), func(b *testing.B) {
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					if n%2 == 0 {
						apply(there)
					} else {
						apply(gone)
					}
				}
			})
		}
		other := changedPod(10*size.pods+1, size.namespaces)
		run("pod", func(to policy.Objects) { to.SetPod(other) }, func(to policy.Objects) { to.DeletePod(other.UID) })
		own := changedPod(10*size.pods, size.namespaces)
		own.Node = thisNode
		run("own pod", func(to policy.Objects) { to.SetPod(own) }, func(to policy.Objects) { to.DeletePod(own.UID) })
		p := changedPolicy(b, 10*size.policies, size.namespaces)
		run("policy", func(to policy.Objects) { to.SetPolicy(p) },
			func(to policy.Objects) { to.DeletePolicy(p.Namespace, p.Name) })
		stop()
	}
}
