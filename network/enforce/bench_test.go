package enforce

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
)

// The size of a large cluster.
const (
	benchNamespaces = 100
	benchPolicies   = 1000
	benchPods       = 10000
)

const benchLocal = 50 // pods of this node, whatever the size of the cluster

// benchCluster is a cluster whose namespaces have pods of five Deployments each.
type benchCluster struct{ namespaces int }

func (c benchCluster) pod(i int) policy.Pod {
	p := policy.Pod{
		UID: fmt.Sprintf("6a1f0c1e-0000-4000-8000-%012d", i), Namespace: fmt.Sprint("ns", i%c.namespaces),
		Name: fmt.Sprint("app-7d9c5b8f6d-", i), Node: fmt.Sprint("n", 2+i%100),
		Labels: policy.MakeLabels(map[string]string{
			"app": fmt.Sprint("app", i/c.namespaces%5), "pod-template-hash": "7d9c5b8f6d", "tier": "back",
		}),
		Addresses: [2]netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}),
		},
		Ports: policy.MakePorts([]policy.NamedPort{{Name: "http", Protocol: policy.TCP, Number: 8080}}),
	}
	if i < benchLocal {
		p.Node = thisNode
	}
	return p
}

// policy returns one that allows a Deployment's pods what another one of the namespace and a tier of a tenth of all
// namespaces send.
func (c benchCluster) policy(b *testing.B, i int) policy.Policy {
	p, err := policy.DecodePolicy(fmt.Appendf(nil, `{"metadata":{"namespace":"ns%d","name":"p%d"},"spec":{
		"podSelector":{"matchLabels":{"app":"app%d"}},"policyTypes":["Ingress","Egress"],
		"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"app%d"}}},
			{"namespaceSelector":{"matchLabels":{"team":"t%d"}},"podSelector":{"matchLabels":{"tier":"back"}}}],
			"ports":[{"port":"http"},{"port":443}]}],
		"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ns%d"}}}],
			"ports":[{"port":"http"}]},
			{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8"]}}]}]}}`,
		i%c.namespaces, i, i/c.namespaces%5, (i+1)%5, i%10, i*7%c.namespaces))
	if err != nil || len(p.Problems) > 0 {
		b.Fatal(err, p.Problems)
	}
	return p
}

// setPolicies sets the namespaces and so many policies.
func (c benchCluster) setPolicies(b *testing.B, to policy.Objects, policies int) {
	for i := range c.namespaces {
		name := fmt.Sprint("ns", i)
		to.SetNamespace(policy.Namespace{Name: name, Labels: policy.MakeLabels(map[string]string{
			"kubernetes.io/metadata.name": name, "team": fmt.Sprint("t", i%10),
		})})
	}
	for i := range policies {
		to.SetPolicy(c.policy(b, i))
	}
}

// BenchmarkNode brings 1,000 policies, 50 pods of the node and 10,000 of others into the kernel, from nothing, and
// reports what the daemon's heap takes for them: a pod of another node, and all else.
func BenchmarkNode(b *testing.B) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what unique.Make keeps goes later
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	cluster := benchCluster{benchNamespaces}
	for b.Loop() {
		b.StopTimer()
		before := heap()
		e, stop := start(b, Options{})
		b.StartTimer()
		apply(b, e, func(to policy.Objects) {
			cluster.setPolicies(b, to, benchPolicies)
			for i := range benchLocal {
				to.SetPod(cluster.pod(i))
			}
		})
		b.StopTimer()
		policies := heap()
		b.StartTimer()
		apply(b, e, func(to policy.Objects) {
			for i := range benchPods {
				to.SetPod(cluster.pod(benchLocal + i))
			}
		})
		b.StopTimer()
		b.ReportMetric(float64(heap()-policies)/benchPods, "B/pod")
		b.ReportMetric(float64(policies-before)/(1<<20), "MB-policies")
		s := e.Status()
		b.ReportMetric(float64(s.Elements), "elements")
		b.ReportMetric(float64(s.Chains), "chains")
		stop()
		clearTables(b)
		b.StartTimer()
	}
}
