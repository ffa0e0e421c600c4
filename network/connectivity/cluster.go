package connectivity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// testPod is a pod of the test as the cluster has it.
type testPod struct {
	Place
	role string
	// why it is not ready, for people; empty: it is
	why string
}

// podList is what is read of the test's pods.
type podList struct {
	Items []struct {
		Metadata struct {
			Name   string
			Labels map[string]string
		}
		Spec   struct{ NodeName string }
		Status struct {
			PodIPs            []struct{ IP netip.Addr }
			Conditions        []condition
			ContainerStatuses []struct {
				State struct {
					Waiting struct{ Reason, Message string }
				}
			}
		}
	}
}

type condition struct{ Type, Status, Reason, Message string }

// parse returns the pods, by their nodes' names.
func (l podList) parse() (all []testPod) {
	for _, i := range l.Items {
		p := testPod{role: i.Metadata.Labels[roleLabel]}
		p.Name, p.Node = i.Metadata.Name, i.Spec.NodeName
		for _, ip := range i.Status.PodIPs {
			p.Addrs[subnet.FamilyOf(ip.IP)] = ip.IP
		}
		ready := slices.IndexFunc(i.Status.Conditions, func(c condition) bool { return c.Type == "Ready" })
		if ready < 0 || i.Status.Conditions[ready].Status != "True" {
			p.why = "not ready"
			for _, c := range append(i.Status.Conditions, condition{}) {
				if c.Status == "False" && c.Message != "" {
					p.why = c.Message
				}
			}
			for _, c := range i.Status.ContainerStatuses {
				if w := c.State.Waiting; w.Reason != "" {
					p.why = strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
				}
			}
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b testPod) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// pair sorts the ready pods into the two of each node, and says of nodes that lack one why.
func pair(pods []testPod) (first, second []Place, check Check) {
	check.Name = podsStart
	byNode := map[string]map[string]Place{}
	for _, p := range pods {
		check.Probes++
		if p.why != "" {
			check.Failed++
			check.Failures = append(check.Failures, Failure{From: p.String(), Error: p.why})
			continue
		}
		if byNode[p.Node] == nil {
			byNode[p.Node] = map[string]Place{}
		}
		byNode[p.Node][p.role] = p.Place
	}
	for _, p := range pods {
		both := byNode[p.Node]
		if p.role == firstName && both[firstName].Name == p.Name && both[secondName].Name != "" {
			first, second = append(first, p.Place), append(second, both[secondName])
		}
	}
	return first, second, check
}

// familiesOf returns those that all places have an address of.
func familiesOf(places []Place) (families []subnet.Family) {
	for _, f := range subnet.Families() {
		if !slices.ContainsFunc(places, func(p Place) bool { return !p.Addrs[f].IsValid() }) {
			families = append(families, f)
		}
	}
	return families
}

// learn reads what can be called from the pods that are ready.
func (r *run) learn(ctx context.Context, first, second []Place, daemons []kubectl.Daemon) (t *topology, err error) {
	t = &topology{first: first, second: second, families: familiesOf(append(slices.Clone(first), second...))}
	if len(t.families) == 0 {
		return nil, errors.New("the pods of the test have no address of one family in common")
	}
	for _, p := range first {
		d, err := kubectl.On(daemons, p.Node)
		if err != nil {
			return nil, err
		}
		t.daemons = append(t.daemons, Place{Name: p.Node, Node: p.Node})
		r.containers[p.Node] = d.Container
	}
	var nodes nodeList
	if err := r.Kubectl.Get(ctx, &nodes, "nodes"); err != nil {
		return nil, err
	}
	t.nodes, t.kubelets = nodes.of(first)
	var own, api struct {
		Spec struct {
			ClusterIPs []netip.Addr
			Ports      []struct{ Port uint16 }
		}
	}
	if err := r.Kubectl.Get(ctx, &own, "service", "-n", r.Namespace, serviceName); err != nil {
		return nil, err
	}
	for _, a := range own.Spec.ClusterIPs {
		t.service[subnet.FamilyOf(a)] = a
	}
	if err := r.Kubectl.Get(ctx, &api, "service", "-n", "default", "kubernetes"); err != nil {
		return nil, err
	}
	var slicesOf endpointSlices
	err = r.Kubectl.Get(ctx, &slicesOf, "endpointslices", "-n", "default",
		"-l", "kubernetes.io/service-name=kubernetes")
	if err != nil {
		return nil, err
	}
	t.apiServers = slicesOf.parse(t.families)
	if a := api.Spec; len(a.ClusterIPs) > 0 && len(a.Ports) > 0 &&
		slices.Contains(t.families, subnet.FamilyOf(a.ClusterIPs[0])) {
		t.apiService = netip.AddrPortFrom(a.ClusterIPs[0], a.Ports[0].Port)
	}
	t.outside = r.outside
	return t, nil
}

// nodeList is what is read of nodes.
type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Status   struct {
			Addresses       []struct{ Type, Address string }
			DaemonEndpoints struct{ KubeletEndpoint struct{ Port uint16 } }
		}
	}
}

// of returns the addresses and the kubelets' ports of the places' nodes.
func (l nodeList) of(places []Place) (addrs [][2]netip.Addr, ports []uint16) {
	for _, p := range places {
		var of [2]netip.Addr
		var port uint16
		for _, n := range l.Items {
			if n.Metadata.Name != p.Node {
				continue
			}
			port = n.Status.DaemonEndpoints.KubeletEndpoint.Port
			for _, a := range n.Status.Addresses {
				if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
					of[subnet.FamilyOf(ip)] = ip
				}
			}
		}
		addrs, ports = append(addrs, of), append(ports, port)
	}
	return addrs, ports
}

// endpointSlices are those of a Service.
type endpointSlices struct {
	Items []struct {
		Endpoints []struct{ Addresses []netip.Addr }
		Ports     []struct{ Port uint16 }
	}
}

func (l endpointSlices) parse(families []subnet.Family) (all []netip.AddrPort) {
	for _, s := range l.Items {
		for _, e := range s.Endpoints {
			for _, a := range e.Addresses {
				if len(s.Ports) > 0 && slices.Contains(families, subnet.FamilyOf(a)) {
					all = append(all, netip.AddrPortFrom(a, s.Ports[0].Port))
				}
			}
		}
	}
	return all
}

// enforced reports whether all daemons enforce network policies. If not, why says of which node that is known, and why.
func (r *run) enforced(ctx context.Context, t *topology) (why string) {
	for _, d := range t.daemons {
		var s status.Status
		var out strings.Builder
		// The exit code says whether the node is ready, which is not the question.
		ask := r.containers[d.Name].Exec(kubectl.DaemonPath, "status", "-o", "json")
		err := r.Kubectl.Run(ctx, nil, &out, nil, ask...)
		if json.Unmarshal([]byte(out.String()), &s) != nil {
			return fmt.Sprintf("the daemon of node %s does not say whether it enforces policies: %v", d.Node, err)
		}
		if s.Enforcement == nil {
			return fmt.Sprintf("the daemon of node %s enforces no network policies (--network-policy)", d.Node)
		}
	}
	return ""
}

// hasDNS reports whether the cluster has a Service of a DNS server, as kubeadm, k3s and the clouds name it.
func (r *run) hasDNS(ctx context.Context) (bool, error) {
	var list struct{ Items []struct{} }
	err := r.Kubectl.Get(ctx, &list, "services", "-n", "kube-system", "-l", "k8s-app=kube-dns")
	return len(list.Items) > 0, err
}

// perform has a place make calls.
func (r *run) perform(ctx context.Context, at Place, orders agent.Orders) (results agent.Results, err error) {
	text, err := json.Marshal(orders)
	if err != nil {
		return results, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out strings.Builder
	if err := r.Kubectl.Run(ctx, strings.NewReader(string(text)), &out, nil, r.probeArgs(at)...); err != nil {
		return results, err
	}
	if err := json.Unmarshal([]byte(out.String()), &results); err != nil {
		return results, fmt.Errorf("read the answer of %s: %w", at, err)
	}
	return results, nil
}

// askTime is how long a place may take for its calls, each of which ends in time by itself.
const askTime = 2 * time.Minute

func (r *run) probeArgs(at Place) []string {
	return r.containers[at.Name].Exec(kubectl.DaemonPath, "connectivity-test", "probe")
}
