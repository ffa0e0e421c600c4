package connectivity

import (
	"net/netip"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// Names of checks, in the order in which they are shown.
const (
	podsStart       = "pods start"
	sameNode        = "pod to pod, same node"
	otherNode       = "pod to pod, other node"
	fullSize        = "full-size packets"
	podToNode       = "pod to node"
	nodeToPod       = "node to pod"
	service         = "Service, from pods"
	nodeToService   = "Service, from nodes"
	apiService      = "Service of the API server"
	apiAddress      = "API server, by its address"
	dns             = "DNS"
	outside         = "outside"
	policyAllows    = "policies: what is allowed"
	policyDenies    = "policies: what is denied"
	policyDeleted   = "policies: deleted"
	rollingRestart  = "rolling restart"
	afterTheRestart = "pod to pod, after the restart"
)

// MostPeers is how many pods each pod calls: in a larger cluster, calls of all pairs would take long and show no more.
const MostPeers = 24

// kubernetesName is the name of the API server's Service in every cluster, in the form that needs the search list of
// the pod's resolv.conf.
const kubernetesName = "kubernetes.default.svc"

// topology is the ends of a cluster that can be called.
type topology struct {
	families []subnet.Family
	// first and second are pods of the test, one of each on a node; daemons are those of these nodes. All three are in
	// the same order.
	first, second, daemons []Place
	// nodes are the addresses of those nodes, in the same order, and kubelets the TCP ports on which they listen.
	nodes    [][2]netip.Addr
	kubelets []uint16

	service    [2]netip.Addr    // cluster IPs of the test's Service
	apiService netip.AddrPort   // of the Service kubernetes; invalid: none
	apiServers []netip.AddrPort // the endpoints of that Service
	outside    []target
}

// target is an address outside the cluster.
type target struct {
	text string
	netip.AddrPort
}

// echo is where a pod answers.
func echo(p Place, f subnet.Family) netip.AddrPort {
	return netip.AddrPortFrom(p.Addrs[f], agent.EchoPort)
}

// peersOf returns the indices of the other places that place i of n calls: those after it.
func peersOf(i, n int) (peers []int) {
	for k := 1; k < n && k <= MostPeers; k++ {
		peers = append(peers, (i+k)%n)
	}
	return peers
}

// plan is a list of calls, from some places.
type plan struct {
	callers []Place
	probes  []probe
}

func (p *plan) add(check string, f subnet.Family, from int, to string, c agent.Call, w want) {
	p.probes = append(p.probes, probe{check: check, family: f, from: from, to: to, call: c, want: w})
}

// bothWays adds a call by TCP and one by UDP.
func (p *plan) bothWays(check string, f subnet.Family, from int, to string, at netip.AddrPort, w want) {
	for _, network := range []agent.Network{agent.UDP, agent.TCP} {
		p.add(check, f, from, to, agent.Call{Network: network, To: at}, w)
	}
}

// podPlan needs nothing but the overlay: pods call each other, and see each other's own addresses.
func (t *topology) podPlan() plan {
	p := plan{callers: t.first}
	for i, from := range t.first {
		for _, f := range t.families {
			one := func(check string, to Place) {
				w := want{by: to.Name, seen: []netip.Addr{from.Addrs[f]}}
				p.bothWays(check, f, i, to.String(), echo(to, f), w)
				p.add(fullSize, f, i, to.String(), agent.Call{Network: agent.Full, To: echo(to, f)}, w)
			}
			one(sameNode, t.second[i])
			for _, j := range peersOf(i, len(t.first)) {
				one(otherNode, t.first[j])
			}
		}
	}
	return p
}

// repeatPlan has pods call others once more, after a change of the cluster.
func (t *topology) repeatPlan(check string, callers, to []Place) plan {
	p := plan{callers: callers}
	for i, from := range callers {
		for _, f := range t.families {
			for _, j := range append(peersOf(i, len(to)), i) {
				if from.Name != to[j].Name {
					p.bothWays(check, f, i, to[j].String(), echo(to[j], f), want{by: to[j].Name})
				}
			}
		}
	}
	return p
}

// podToNodePlan has pods connect to the kubelets of nodes.
func (t *topology) podToNodePlan() plan {
	p := plan{callers: t.first}
	for i := range t.first {
		for _, f := range t.families {
			for _, j := range append(peersOf(i, len(t.first)), i) {
				if at := t.nodes[j][f]; at.IsValid() && t.kubelets[j] != 0 {
					p.add(podToNode, f, i, "node "+t.first[j].Node,
						agent.Call{Network: agent.Connect, To: netip.AddrPortFrom(at, t.kubelets[j])}, want{})
				}
			}
		}
	}
	return p
}

// nodePlans have nodes call pods and the Service.
func (t *topology) nodePlans() (pods, services plan) {
	pods, services = plan{callers: t.daemons}, plan{callers: t.daemons}
	for i := range t.daemons {
		for _, f := range t.families {
			for _, j := range append(peersOf(i, len(t.first)), i) {
				pods.bothWays(nodeToPod, f, i, t.first[j].String(), echo(t.first[j], f), want{by: t.first[j].Name})
			}
			t.addService(&services, nodeToService, f, i)
		}
	}
	return pods, services
}

// addService has one caller call the Service, whose pods are the first.
func (t *topology) addService(p *plan, check string, f subnet.Family, from int) {
	if t.service[f].IsValid() {
		p.bothWays(check, f, from, "Service "+serviceName, netip.AddrPortFrom(t.service[f], servicePort), want{})
	}
}

// servicePlan needs kube-proxy, or a replacement of it.
func (t *topology) servicePlan() plan {
	p := plan{callers: t.first}
	for i := range t.first {
		for _, f := range t.families {
			t.addService(&p, service, f, i)
		}
		if t.apiService.IsValid() {
			p.add(apiService, subnet.FamilyOf(t.apiService.Addr()), i, "Service kubernetes",
				agent.Call{Network: agent.Connect, To: t.apiService}, want{})
		}
	}
	return p
}

// outsidePlan leaves the overlay.
func (t *topology) outsidePlan() plan {
	p := plan{callers: t.first}
	for i := range t.first {
		for _, at := range t.apiServers {
			p.add(apiAddress, subnet.FamilyOf(at.Addr()), i, at.String(),
				agent.Call{Network: agent.Connect, To: at}, want{})
		}
		for _, to := range t.outside {
			p.add(outside, subnet.FamilyOf(to.Addr()), i, to.text,
				agent.Call{Network: agent.Connect, To: to.AddrPort}, want{})
		}
	}
	return p
}

// dnsPlan needs the cluster's DNS.
func (t *topology) dnsPlan() plan {
	p := plan{callers: t.first}
	for i := range t.first {
		p.probes = append(p.probes, probe{check: dns, any: true, from: i, to: kubernetesName,
			call: agent.Call{Network: agent.DNS, Name: kubernetesName}})
	}
	return p
}

// allowedPlan has the calls that the policies of the test allow: the first pods call the second.
func (t *topology) allowedPlan() plan { return t.repeatPlan(policyAllows, t.first, t.second) }

// deniedPlans have the calls that they deny: in ingress, the second pods call the first; in egress, the first call the
// API server.
func (t *topology) deniedPlans() (ingress, egress plan) {
	ingress, egress = t.repeatPlan(policyDenies, t.second, t.first), plan{callers: t.first}
	for i := range t.first {
		for _, at := range t.apiServers {
			egress.add(policyDenies, subnet.FamilyOf(at.Addr()), i, at.String(),
				agent.Call{Network: agent.Connect, To: at}, want{})
		}
	}
	for _, p := range []plan{ingress, egress} {
		for i := range p.probes {
			p.probes[i].want = want{denied: true}
		}
	}
	return ingress, egress
}

// streams returns the streams of each of the first pods during a restart: to the pod of the next node, and to the
// second pod of its own node.
func (t *topology) streams() (orders []agent.Orders) {
	for i := range t.first {
		var o agent.Orders
		for _, f := range t.families {
			for _, to := range []Place{t.first[(i+1)%len(t.first)], t.second[i]} {
				if to.Name != t.first[i].Name {
					o.Streams = append(o.Streams, agent.Stream{To: echo(to, f), Every: streamEvery})
				}
			}
		}
		orders = append(orders, o)
	}
	return orders
}
