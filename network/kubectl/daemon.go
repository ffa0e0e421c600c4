package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// How the manifest and the chart mark the daemons' pods.
const (
	DaemonLabel     = "app.kubernetes.io/name=selvage"
	DaemonContainer = "selvaged"
	// DaemonPath is that of the daemon's program in its image.
	DaemonPath = "/usr/local/bin/selvaged"
)

// Daemon is a pod that runs selvaged.
type Daemon struct {
	Container
	Node  string
	Image string
	Set   string // name of its DaemonSet
	Ready bool
}

// pods is what is read of a list of pods.
type pods struct {
	Items []struct {
		Metadata struct {
			Name, Namespace   string
			DeletionTimestamp string
			OwnerReferences   []struct{ Kind, Name string }
		}
		Spec struct {
			NodeName   string
			Containers []struct{ Name, Image string }
		}
		Status struct {
			PodIPs     []struct{ IP string }
			Conditions []struct{ Type, Status string }
		}
	}
}

// Daemons returns the pods of all daemons of the cluster, by their nodes' names. That there is none is an error.
func (c Client) Daemons(ctx context.Context) (all []Daemon, err error) {
	var list pods
	if err := c.Get(ctx, &list, "pods", "--all-namespaces", "-l", DaemonLabel); err != nil {
		return nil, err
	}
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp != "" || p.Spec.NodeName == "" {
			continue
		}
		for _, container := range p.Spec.Containers {
			if container.Name != DaemonContainer {
				continue
			}
			d := Daemon{
				Container: Container{p.Metadata.Namespace, p.Metadata.Name, container.Name},
				Node:      p.Spec.NodeName, Image: container.Image,
			}
			for _, owner := range p.Metadata.OwnerReferences {
				if owner.Kind == "DaemonSet" {
					d.Set = owner.Name
				}
			}
			for _, condition := range p.Status.Conditions {
				d.Ready = d.Ready || condition.Type == "Ready" && condition.Status == "True"
			}
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no pod of this cluster has the label %s and a container %s: "+
			"is selvage installed in it, and is this the right context (kubectl config current-context)?",
			DaemonLabel, DaemonContainer)
	}
	slices.SortFunc(all, func(a, b Daemon) int { return cmp.Compare(a.Node, b.Node) })
	return all, nil
}

// ErrNoDaemon is a node without a daemon's pod.
var ErrNoDaemon = errors.New("no daemon of selvage runs on it as a pod")

// On returns the daemon of a node.
func On(all []Daemon, node string) (Daemon, error) {
	for _, d := range all {
		if d.Node == node {
			return d, nil
		}
	}
	return Daemon{}, fmt.Errorf("node %s: %w", node, ErrNoDaemon)
}
