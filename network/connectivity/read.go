package connectivity

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

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
