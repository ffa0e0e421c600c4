package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
	"unique"

	"github.com/selvage-net/selvage/subnet"
)

// container is what matters of a container.
type container struct {
	RestartPolicy string `json:"restartPolicy"`
	Ports         []struct {
		Name          string          `json:"name"`
		Protocol      json.RawMessage `json:"protocol"`
		ContainerPort int             `json:"containerPort"`
	} `json:"ports"`
}

// podObject is what matters of a pod's JSON. Everything else is skipped.
type podObject struct {
	Metadata struct {
		Namespace         string            `json:"namespace"`
		Name              string            `json:"name"`
		UID               string            `json:"uid"`
		Labels            map[string]string `json:"labels"`
		CreationTimestamp string            `json:"creationTimestamp"`
		DeletionTimestamp string            `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName       string      `json:"nodeName"`
		HostNetwork    bool        `json:"hostNetwork"`
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase     string                `json:"phase"`
		PodIP     string                `json:"podIP"`
		PodIPs    []struct{ IP string } `json:"podIPs"`
		StartTime string                `json:"startTime"`
	} `json:"status"`
}

// DecodePod reads a Pod from the API's JSON. The error says that the object is not a pod with a name; an address, a
// port or a time that is not understood is left out and one of the problems. A pod from a file that has no UID gets its
// name as one.
func DecodePod(data []byte) (Pod, []Problem, error) {
	var o podObject
	if err := json.Unmarshal(data, &o); err != nil {
		return Pod{}, nil, fmt.Errorf("Pod: %w: %w", errObject, err)
	}
	if o.Metadata.Name == "" || o.Metadata.Namespace == "" {
		return Pod{}, nil, fmt.Errorf("Pod: %w: metadata.name or metadata.namespace is missing", errObject)
	}
	d := &decoder{}
	p := Pod{
		UID: o.Metadata.UID, Namespace: intern(o.Metadata.Namespace), Name: o.Metadata.Name,
		Node:   intern(o.Spec.NodeName),
		Labels: MakeLabels(o.Metadata.Labels), Addresses: d.addresses(&o), Ports: d.namedPorts(&o),
		Since: d.since(&o), Deleting: o.Metadata.DeletionTimestamp != "", HostNetwork: o.Spec.HostNetwork,
		Ended: o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed",
	}
	if p.UID == "" {
		p.UID = p.Namespace + "/" + p.Name
	}
	return p, d.problems, nil
}

// intern returns a string of which equal ones share one copy.
func intern(s string) string { return unique.Make(s).Value() }

// addresses returns the first address of each family.
func (d *decoder) addresses(o *podObject) (all [2]netip.Addr) {
	var list []string
	for _, item := range o.Status.PodIPs {
		list = append(list, item.IP)
	}
	place := "status.podIPs"
	if len(list) == 0 && o.Status.PodIP != "" {
		list, place = []string{o.Status.PodIP}, "status.podIP"
	}
	all, problems := PodAddresses(place, list)
	d.problems = append(d.problems, problems...)
	return all
}

// PodAddresses returns the first address of each family in a list of texts, such as a pod's status.podIPs. What is no
// address is left out and one of the problems; place names the list in them.
func PodAddresses(place string, list []string) (all [2]netip.Addr, problems []Problem) {
	d := &decoder{}
	for i, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4In6() || a.Zone() != "" {
			d.note(ReasonAddress, index(place, i), "is %s, want an IP address", subnet.Quote(text))
			continue
		}
		if f := subnet.FamilyOf(a); !all[f].IsValid() {
			all[f] = a
		}
	}
	return all, d.problems
}

// namedPorts returns the named ports of containers, and of init containers that run beside them.
func (d *decoder) namedPorts(o *podObject) Ports {
	var list []NamedPort
	for i, c := range o.Spec.Containers {
		list = append(list, d.portsOf(index("spec.containers", i), c)...)
	}
	for i, c := range o.Spec.InitContainers {
		if c.RestartPolicy == "Always" {
			list = append(list, d.portsOf(index("spec.initContainers", i), c)...)
		}
	}
	return MakePorts(list)
}

func (d *decoder) portsOf(place string, c container) (list []NamedPort) {
	for i, p := range c.Ports {
		if p.Name == "" {
			continue
		}
		place := index(place+".ports", i)
		if p.ContainerPort < 1 || p.ContainerPort > 0xffff {
			d.note(ReasonPodPort, place, "has the containerPort %d, want a number from 1 to 65535", p.ContainerPort)
			continue
		}
		if protocol, ok := d.protocol(place+".protocol", p.Protocol); ok {
			list = append(list, NamedPort{Name: p.Name, Protocol: protocol, Number: uint16(p.ContainerPort)})
		}
	}
	return list
}

// since returns since when the pod has been on its node, or else in the API; zero if that is not known.
func (d *decoder) since(o *podObject) int64 {
	place, text := "status.startTime", o.Status.StartTime
	if text == "" {
		place, text = "metadata.creationTimestamp", o.Metadata.CreationTimestamp
	}
	if text == "" {
		return 0
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		d.note(ReasonTimestamp, place, "is %s, want a time of RFC 3339", subnet.Quote(text))
		return 0
	}
	return t.Unix()
}

// DecodeNamespace reads a Namespace from the API's JSON. The error says that the object is not a namespace with a name.
func DecodeNamespace(data []byte) (Namespace, error) {
	var o struct {
		Metadata struct {
			Name   string            `json:"name"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return Namespace{}, fmt.Errorf("Namespace: %w: %w", errObject, err)
	}
	if o.Metadata.Name == "" {
		return Namespace{}, fmt.Errorf("Namespace: %w: metadata.name is missing", errObject)
	}
	return Namespace{Name: intern(o.Metadata.Name), Labels: MakeLabels(o.Metadata.Labels)}, nil
}
