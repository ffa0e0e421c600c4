package connectivity

import (
	"cmp"
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

// Ends are what can be called in a cluster.
type Ends struct {
	Families []subnet.Family
	// First and Second are pods of the test, one of each on a node; Daemons are those of these nodes. All three are in
	// the same order.
	First, Second, Daemons []Place
	// Port is where the pods answer; 0: at [agent.EchoPort].
	Port uint16
	// Nodes are the addresses of those nodes, in the same order, and NodePorts TCP ports on which they listen: the
	// kubelets'.
	Nodes     [][2]netip.Addr
	NodePorts []uint16

	Service    [2]netip.Addr    // cluster IPs of the test's Service
	APIService netip.AddrPort   // of the Service kubernetes; invalid: none
	APIServers []netip.AddrPort // the endpoints of that Service
}

// echo is where a pod answers.
func (t *Ends) echo(p Place, f subnet.Family) netip.AddrPort {
	return netip.AddrPortFrom(p.Addrs[f], cmp.Or(t.Port, agent.EchoPort))
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
func (t *Ends) podPlan() plan {
	p := plan{callers: t.First}
	for i, from := range t.First {
		for _, f := range t.Families {
			one := func(check string, to Place) {
				w := want{by: to.Name, seen: []netip.Addr{from.Addrs[f]}}
				p.bothWays(check, f, i, to.String(), t.echo(to, f), w)
				p.add(fullSize, f, i, to.String(), agent.Call{Network: agent.Full, To: t.echo(to, f)}, w)
			}
			one(sameNode, t.Second[i])
			for _, j := range peersOf(i, len(t.First)) {
				one(otherNode, t.First[j])
			}
		}
	}
	return p
}

// repeatPlan has pods call others once more, after a change of the cluster.
func (t *Ends) repeatPlan(check string, callers, to []Place) plan {
	p := plan{callers: callers}
	for i, from := range callers {
		for _, f := range t.Families {
			for _, j := range append(peersOf(i, len(to)), i) {
				if from.Name != to[j].Name {
					p.bothWays(check, f, i, to[j].String(), t.echo(to[j], f), want{by: to[j].Name})
				}
			}
		}
	}
	return p
}

// podToNodePlan has pods connect to the kubelets of nodes.
func (t *Ends) podToNodePlan() plan {
	p := plan{callers: t.First}
	for i := range t.First {
		for _, f := range t.Families {
			for _, j := range append(peersOf(i, len(t.First)), i) {
				if at := t.Nodes[j][f]; at.IsValid() && t.NodePorts[j] != 0 {
					p.add(podToNode, f, i, "node "+t.First[j].Node,
						agent.Call{Network: agent.Connect, To: netip.AddrPortFrom(at, t.NodePorts[j])}, want{})
				}
			}
		}
	}
	return p
}

// nodePlans have nodes call pods and the Service.
func (t *Ends) nodePlans() (pods, services plan) {
	pods, services = plan{callers: t.Daemons}, plan{callers: t.Daemons}
	for i := range t.Daemons {
		for _, f := range t.Families {
			for _, j := range append(peersOf(i, len(t.First)), i) {
				pods.bothWays(nodeToPod, f, i, t.First[j].String(), t.echo(t.First[j], f), want{by: t.First[j].Name})
			}
			t.addService(&services, nodeToService, f, i)
		}
	}
	return pods, services
}

// addService has one caller call the Service, whose pods are the first.
func (t *Ends) addService(p *plan, check string, f subnet.Family, from int) {
	if t.Service[f].IsValid() {
		p.bothWays(check, f, from, "Service "+serviceName, netip.AddrPortFrom(t.Service[f], servicePort), want{})
	}
}

// servicePlan needs kube-proxy, or a replacement of it.
func (t *Ends) servicePlan() plan {
	p := plan{callers: t.First}
	for i := range t.First {
		for _, f := range t.Families {
			t.addService(&p, service, f, i)
		}
		if t.APIService.IsValid() {
			p.add(apiService, subnet.FamilyOf(t.APIService.Addr()), i, "Service kubernetes",
				agent.Call{Network: agent.Connect, To: t.APIService}, want{})
		}
	}
	return p
}

// outsidePlan leaves the overlay.
func (t *Ends) outsidePlan(addrs []netip.AddrPort) plan {
	p := plan{callers: t.First}
	for i := range t.First {
		for _, at := range t.APIServers {
			p.add(apiAddress, subnet.FamilyOf(at.Addr()), i, at.String(),
				agent.Call{Network: agent.Connect, To: at}, want{})
		}
		for _, to := range addrs {
			p.add(outside, subnet.FamilyOf(to.Addr()), i, to.String(),
				agent.Call{Network: agent.Connect, To: to}, want{})
		}
	}
	return p
}

// dnsPlan needs the cluster's DNS.
func (t *Ends) dnsPlan() plan {
	p := plan{callers: t.First}
	for i := range t.First {
		p.probes = append(p.probes, probe{check: dns, any: true, from: i, to: kubernetesName,
			call: agent.Call{Network: agent.DNS, Name: kubernetesName}})
	}
	return p
}

// allowedPlan has the calls that the policies of the test allow: the first pods call the second.
func (t *Ends) allowedPlan() plan { return t.repeatPlan(policyAllows, t.First, t.Second) }

// deniedPlans have the calls that they deny: in ingress, the second pods call the first; in egress, the first call the
// API server.
func (t *Ends) deniedPlans() (ingress, egress plan) {
	ingress, egress = t.repeatPlan(policyDenies, t.Second, t.First), plan{callers: t.First}
	for i := range t.First {
		for _, at := range t.APIServers {
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
func (t *Ends) streams() (orders []agent.Orders) {
	for i := range t.First {
		var o agent.Orders
		for _, f := range t.Families {
			for _, to := range []Place{t.First[(i+1)%len(t.First)], t.Second[i]} {
				if to.Name != t.First[i].Name {
					o.Streams = append(o.Streams, agent.Stream{To: t.echo(to, f), Every: streamEvery})
				}
			}
		}
		orders = append(orders, o)
	}
	return orders
}
