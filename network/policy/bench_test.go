package policy

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

const (
	benchNamespaces = 100
	benchLocal      = 50 // pods of this node, whatever the size of the cluster
)

// benchPod returns a pod of a large cluster. Each namespace has pods of five Deployments.
func benchPod(i int) Pod {
	p := Pod{
		UID: fmt.Sprintf("6a1f0c1e-0000-4000-8000-%012d", i), Namespace: intern(fmt.Sprint("ns", i%benchNamespaces)),
		Name: fmt.Sprint("app-7d9c5b8f6d-", i), Node: intern(fmt.Sprint("n", 2+i%100)),
		Labels: MakeLabels(map[string]string{"app": fmt.Sprint("app", i/benchNamespaces%5), "pod-template-hash": "7d9c5b8f6d", "tier": "back"}),
		Addresses: [2]netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}),
		},
		Ports: MakePorts([]NamedPort{{"http", TCP, 8080}, {"metrics", TCP, 9090}}),
	}
	if i < benchLocal {
		p.Node = thisNode
	}
	return p
}

// benchPolicy returns one of many policies, spread over all namespaces.
func benchPolicy(t testing.TB, i int) Policy {
	p, err := DecodePolicy(fmt.Appendf(nil, `{"metadata":{"namespace":"ns%d","name":"p%d"},"spec":{"podSelector":{"matchLabels":{"app":"app%d"}},"policyTypes":["Ingress","Egress"],
		"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"app%d"}}},{"namespaceSelector":{"matchLabels":{"team":"t%d"}},"podSelector":{"matchLabels":{"tier":"back"}}}],"ports":[{"port":"http"},{"port":443}]}],
		"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ns%d"}}}],"ports":[{"port":"http"}]},{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8"]}}]}]}}`,
		i%benchNamespaces, i, i/benchNamespaces%5, (i+1)%5, i%10, i*7%benchNamespaces))
	if err != nil || len(p.Problems) > 0 {
		t.Fatal(err, p.Problems)
	}
	return p
}

func benchNamespace(i, team int) Namespace {
	return Namespace{Name: intern(fmt.Sprint("ns", i)), Labels: MakeLabels(map[string]string{"kubernetes.io/metadata.name": fmt.Sprint("ns", i), "team": fmt.Sprint("t", team)})}
}

func benchCompiler(t testing.TB, pods, policies int) *Compiler {
	c := NewCompiler(thisNode)
	for i := range benchNamespaces {
		c.SetNamespace(benchNamespace(i, i%10))
	}
	for i := range policies {
		c.SetPolicy(benchPolicy(t, i))
	}
	for i := range pods {
		c.SetPod(benchPod(i))
	}
	c.Changes()
	return c
}

// BenchmarkChange: one change in a cluster with 1,000 policies, by the number of pods, with the reading of what changes.
func BenchmarkChange(b *testing.B) {
	for _, pods := range []int{100, 10000} {
		c := benchCompiler(b, pods, 1000)
		// run does a change and its opposite, so that each counts as half.
		run := func(name string, change func(i int)) {
			b.Run(fmt.Sprintf("%s/pods=%d", name, pods), func(b *testing.B) {
				b.ReportAllocs()
				elements, n := 0, 0
				for b.Loop() {
					change(n)
					for _, s := range c.Changes().Sets {
						elements += len(s.Add) + len(s.Remove)
					}
					n++
				}
				b.ReportMetric(float64(elements)/float64(n), "elements/op")
			})
		}
		toggle := func(p Pod) func(int) {
			return func(i int) {
				if i%2 == 0 {
					c.DeletePod(p.UID)
				} else {
					c.SetPod(p)
				}
			}
		}
		run("pod", toggle(benchPod(benchLocal+1)))
		second := benchPod(1)
		second.UID, second.Addresses = "second", [2]netip.Addr{netip.MustParseAddr("10.255.0.1"), netip.MustParseAddr("fd00::ffff:1")}
		run("local pod", toggle(second))
		c.DeletePod(second.UID)
		run("first local pod", toggle(benchPod(1)))
		c.SetPod(benchPod(1)) // which the policy selects
		p := benchPolicy(b, 1)
		run("policy", func(i int) {
			if i%2 == 0 {
				c.DeletePolicy(p.Namespace, p.Name)
			} else {
				c.SetPolicy(p)
			}
		})
		run("namespace", func(i int) { c.SetNamespace(benchNamespace(1, 1+i%2)) })
	}
}

// BenchmarkScratch: all of a cluster with 1,000 policies, as after a start.
func BenchmarkScratch(b *testing.B) {
	for b.Loop() {
		benchCompiler(b, 10000, 1000)
	}
}

// BenchmarkJudge: one packet, with the compiler's index and by walking over all pods.
func BenchmarkJudge(b *testing.B) {
	c := benchCompiler(b, 10000, 1000)
	p := Packet{Source: benchPod(5).Addresses[0], Destination: benchPod(1).Addresses[0], Protocol: TCP, Port: 80}
	for b.Loop() {
		Judge(c, "", p)
	}
}

// TestMemory: what a pod takes, with its strings.
func TestMemory(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const pods = 10000
	before := heap()
	c := benchCompiler(t, benchLocal, 1000)
	policies := heap()
	for i := range pods {
		c.SetPod(benchPod(benchLocal + i))
	}
	c.Changes()
	after := heap()
	each := (after - policies) / pods
	t.Logf("1,000 policies, 100 namespaces, %d local pods: %d kB; %d other pods: %d B each", benchLocal, (policies-before)>>10, pods, each)
	if each > 1024 {
		t.Errorf("a pod takes %d bytes, want at most 1024", each)
	}
	runtime.KeepAlive(c)
}
