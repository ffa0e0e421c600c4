package feed

import (
	"fmt"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// pod returns a pod of the API. ok is false if it cannot be read: what is known of it stays.
func (k *kubernetes) pod(o *apiserver.Pod) (p policy.Pod, ok bool) {
	p, problems := podOf(o)
	bad := k.note("Pod", &o.Object, problems)
	return p, !bad
}

// podOf returns what policies need to know of a pod, and what of that was not understood.
func podOf(o *apiserver.Pod) (p policy.Pod, problems []policy.Problem) {
	p = policy.Pod{
		UID: o.UID, Namespace: o.Namespace, Name: o.Name, Node: o.NodeName, Labels: policy.MakeLabels(o.Labels),
		Deleting: o.Deleting, HostNetwork: o.HostNetwork, Ended: o.Phase == "Succeeded" || o.Phase == "Failed",
	}
	p.Addresses, problems = policy.PodAddresses("status.podIPs", o.Addresses)
	since := o.Started
	if since.IsZero() {
		since = o.Created
	}
	if !since.IsZero() {
		p.Since = since.Unix()
	}
	var ports []policy.NamedPort
	for _, port := range o.Ports {
		place := "port " + subnet.Quote(port.Name)
		protocol, ok := policy.ParseProtocol(port.Protocol)
		switch {
		case !ok:
			problems = append(problems, policy.Problem{Reason: policy.ReasonProtocol, Place: place,
				Text: fmt.Sprintf("has the protocol %s, want TCP, UDP or SCTP", subnet.Quote(port.Protocol))})
		case port.Number < 1 || port.Number > 0xffff:
			problems = append(problems, policy.Problem{Reason: policy.ReasonPodPort, Place: place,
				Text: fmt.Sprintf("has the containerPort %d, want a number from 1 to 65535", port.Number)})
		default:
			ports = append(ports, policy.NamedPort{Name: port.Name, Protocol: protocol, Number: uint16(port.Number)})
		}
	}
	p.Ports = policy.MakePorts(ports)
	return p, problems
}
