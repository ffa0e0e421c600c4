// Package lab runs a small cluster on one machine, with nothing in it that is not real: nodes are network namespaces with
// mounts of their own, their overlay is the kernel's, etcd is etcd, each node runs the selvaged binary, and pods are added
// by calling the CNI plugins as a container runtime does.
//
//	outside   198.51.100.2      another network: it has a route to the nodes, and none to the pods
//	   |
//	 (lab)    172.31.0.1        the namespace of the calling process: routes between them, runs etcd
//	   |
//	underlay0                   a bridge, the nodes' network (fd00:31::/64 as well)
//	   |-- node1   172.31.0.11  selvaged, the overlay's device, a bridge for the pods
//	   |     |-- pod1           a network namespace, with an address of the node's subnet
//	   |     `-- pod2
//	   `-- node2   172.31.0.12
//
// That is the default, an overlay of IPv4. [Options.Families] asks for one of IPv6 alone, in which nothing has an IPv4
// address, or for one of both. [Combinations] lists what an overlay can be made of, and [Combination.Run] tries one.
//
// A lab belongs into a process that [sandbox.Run] started, and there is one at a time in it, since the process's own
// network namespace is part of it:
//
//	func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }
//
//	func TestOverlay(t *testing.T) {
//		l, err := lab.New(t.Context(), lab.Options{Nodes: 2, Bin: "../../bin"})
//		…
//		defer l.Close()
//		a, err := l.AddPod(t.Context(), l.Nodes()[0], "a")
//		b, err := l.AddPod(t.Context(), l.Nodes()[1], "b")
//		result := l.Probe(t.Context(), a.Endpoint, b.Endpoint)
//
// What probes go between is an [Endpoint]: a pod, a node, the outside. Each answers on a UDP and a TCP port with the source
// address that it saw, so that a probe tells whether packets were masqueraded on their way. [Lab.Probe] is for whether
// packets arrive, [Lab.ProbeFull] for whether the largest do, [Lab.Stream] for how many are lost while something goes on.
package lab
