package enforce

import (
	"fmt"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
)

// BenchmarkChange makes one change and waits until the kernel has it, with the opposite change: each counts as half.
func BenchmarkChange(b *testing.B) {
	for _, size := range []struct{ pods, policies, namespaces int }{{100, 10, 10}, {10_000, 1000, 100}} {
		e, stop := start(b, Options{})
		cluster := benchCluster{size.namespaces}
		e.Update(func(to policy.Objects) {
			cluster.setPolicies(b, to, size.policies)
			for i := range size.pods {
				to.SetPod(cluster.pod(i))
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
		other := cluster.pod(10*size.pods + 1)
		run("pod", func(to policy.Objects) { to.SetPod(other) }, func(to policy.Objects) { to.DeletePod(other.UID) })
		own := cluster.pod(10 * size.pods)
		own.Node = thisNode
		run("own pod", func(to policy.Objects) { to.SetPod(own) }, func(to policy.Objects) { to.DeletePod(own.UID) })
		p := cluster.policy(b, 10*size.policies)
		run("policy", func(to policy.Objects) { to.SetPolicy(p) },
			func(to policy.Objects) { to.DeletePolicy(p.Namespace, p.Name) })
		stop()
	}
}
