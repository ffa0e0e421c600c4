package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// template is the part of a workload that its pods are made from.
type template struct {
	Metadata struct {
		Labels map[string]string `json:"labels,omitempty"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec,omitempty"`
}

// addWorkload adds the pod that stands for those of a workload: with the template's labels and ports, and the
// workload's name.
func (c *Cluster) addWorkload(d Document) error {
	var o struct {
		metadata
		Spec struct {
			Template    *template `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template *template `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	switch d.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
	default:
		return nil
	}
	if err := json.Unmarshal(d.JSON, &o); err != nil {
		return fmt.Errorf("%s: %s %s: %w: %w", d.Place(), d.Kind, nameOf(d), ErrSyntax, err)
	}
	from := o.Spec.Template
	if d.Kind == "CronJob" {
		from = o.Spec.JobTemplate.Spec.Template
	}
	if from == nil {
		return fmt.Errorf("%s: %s %s: %w: it has no template of a pod", d.Place(), d.Kind, nameOf(d), ErrSyntax)
	}
	pod := map[string]any{"spec": from.Spec, "metadata": map[string]any{
		"namespace": o.Metadata.Namespace, "name": o.Metadata.Name, "labels": from.Metadata.Labels,
	}}
	raw, err := json.Marshal(pod)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	d.JSON = raw
	return c.addPod(d)
}

// DefaultNetwork is where pods that have no address get one: what most clusters of kubeadm have.
func DefaultNetwork() netip.Prefix { return netip.MustParsePrefix("10.244.0.0/16") }

// Complete adds what a cluster has and files need not have: namespaces, and an address of each network for pods without
// one. Addresses are given in the order of names, so that they are the same each time. No object is added afterwards.
func (c *Cluster) Complete(networks ...netip.Prefix) error {
	c.addNamespaces()
	inUse := map[netip.Addr]bool{}
	var without []*policy.Pod
	for _, p := range c.Pods {
		for _, a := range p.Addresses {
			inUse[a] = true
		}
		if p.Counts() && p.Addresses == [2]netip.Addr{} {
			without = append(without, p)
		}
	}
	slices.SortFunc(without, func(a, b *policy.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for _, network := range networks {
		next := network.Addr().Next() // after the address of the network itself
		for _, p := range without {
			for inUse[next] {
				next = next.Next()
			}
			if !network.Contains(next) {
				return fmt.Errorf("%s has too few addresses for %d pods without one", network, len(without))
			}
			p.Addresses[subnet.FamilyOf(next)] = next
			next = next.Next()
		}
	}
	c.byAddress = map[netip.Addr][]*policy.Pod{}
	for _, p := range c.Pods {
		for _, a := range p.Addresses {
			if a.IsValid() {
				c.byAddress[a] = append(c.byAddress[a], p)
			}
		}
	}
	return nil
}

// addNamespaces adds the namespaces that objects are in and no file has.
func (c *Cluster) addNamespaces() {
	missing := map[string]bool{}
	for _, p := range c.Pods {
		missing[p.Namespace] = true
	}
	for _, p := range c.Policies {
		missing[p.Namespace] = true
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		if _, ok := c.Namespaces[name]; ok {
			continue
		}
		c.Namespaces[name] = policy.Namespace{Name: name,
			Labels: policy.MakeLabels(map[string]string{NameLabel: name})}
		c.Notes = append(c.Notes, Note{Object: "Namespace " + name, Problem: policy.Problem{Reason: ReasonNamespace,
			Text: "is in no file: it is taken to have no labels but " + NameLabel}})
	}
}
