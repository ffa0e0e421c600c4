package bench

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// policyWriters is how many requests to the API are made at a time when a cluster is fabricated.
const policyWriters = 2

// Paths of resources in the API.
const (
	namespacesPath = "/api/v1/namespaces"
	policiesPath   = "/apis/networking.k8s.io/v1/namespaces/%s/networkpolicies"
	podsPath       = "/api/v1/namespaces/%s/pods"
)

// policyCluster is a cluster as network policies see it: namespaces with pods of five Deployments each, and policies.
type policyCluster struct {
	admin      kubetest.Admin
	namespaces int
	node       string // that has the first localPods pods
}

// localPods is how many pods the node has, whatever the size of the cluster.
const localPods = 50

// newPolicyCluster returns one for so many pods, with its namespaces.
func newPolicyCluster(ctx context.Context, admin kubetest.Admin, node string, pods int) (policyCluster, error) {
	c := policyCluster{admin: admin, node: node, namespaces: min(100, max(10, pods/10))}
	return c, c.each(ctx, 0, c.namespaces, func(ctx context.Context, i int) error {
		_, err := admin.Create(ctx, namespacesPath, object{"kind": "Namespace", "apiVersion": "v1", "metadata": object{
			"name":   c.namespace(i),
			"labels": object{"kubernetes.io/metadata.name": c.namespace(i), "team": fmt.Sprintf("team%d", i%10)},
		}})
		return err
	})
}

func (c policyCluster) namespace(i int) string { return fmt.Sprintf("ns%d", i%c.namespaces) }

// each calls f for the numbers from one up to another.
func (c policyCluster) each(ctx context.Context, from, to int, f func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var writers sync.WaitGroup
	for range policyWriters {
		writers.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := from; i < to && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	writers.Wait()
	return context.Cause(ctx)
}

// podObject is a pod as the API has it once it runs. Without an address it has not started yet.
func podObject(name, node string, labels object, address netip.Addr) object {
	o := object{
		"kind": "Pod", "apiVersion": "v1", "metadata": object{"name": name, "labels": labels},
		"spec": object{"nodeName": node, "containers": []object{{"name": "c", "image": "registry.example.org/c:v1",
			"ports": []object{{"name": "http", "containerPort": 8080, "protocol": "TCP"}}}}},
	}
	if address.IsValid() {
		o["status"] = object{"phase": "Running", "podIP": address.String(), "startTime": "2026-01-02T03:04:05Z",
			"podIPs": []object{{"ip": address.String()}}}
	}
	return o
}

// podAddress is the address of pod number i of the cluster.
func podAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(100 + i>>16), byte(i >> 8), byte(i)})
}

func (c policyCluster) podName(i int) string {
	return fmt.Sprintf("app%d-7d9c5b8f6d-%05d", c.deployment(i), i)
}

func (c policyCluster) deployment(i int) int { return i / c.namespaces % 5 }

// addPods adds pods from one number up to another.
func (c policyCluster) addPods(ctx context.Context, from, to int) error {
	return c.each(ctx, from, to, c.addPod)
}

func (c policyCluster) addPod(ctx context.Context, i int) error {
	node := c.node
	if i >= localPods {
		node = fmt.Sprintf("other%d", i%200)
	}
	return c.add(ctx, i, node)
}

// add adds a pod on a node.
func (c policyCluster) add(ctx context.Context, i int, node string) error {
	labels := object{"app": fmt.Sprintf("app%d", c.deployment(i)), "pod-template-hash": "7d9c5b8f6d", "tier": "back"}
	_, err := c.admin.Create(ctx, fmt.Sprintf(podsPath, c.namespace(i)),
		podObject(c.podName(i), node, labels, podAddress(i)))
	return err
}

// removePods removes them again.
func (c policyCluster) removePods(ctx context.Context, from, to int) error {
	return c.each(ctx, from, to, c.removePod)
}

func (c policyCluster) removePod(ctx context.Context, i int) error {
	return c.admin.DeleteAll(ctx, fmt.Sprintf(podsPath, c.namespace(i))+"/"+c.podName(i))
}

// addPolicies adds policies from one number up to another.
func (c policyCluster) addPolicies(ctx context.Context, from, to int) error {
	return c.each(ctx, from, to, c.addPolicy)
}

func (c policyCluster) addPolicy(ctx context.Context, i int) error {
	_, err := c.admin.Create(ctx, fmt.Sprintf(policiesPath, c.namespace(i)), object{
		"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": object{"name": policyName(i)},
		"spec": object{
			"podSelector": matching("app", fmt.Sprintf("app%d", c.deployment(i))),
			"policyTypes": []string{"Ingress", "Egress"},
			"ingress":     c.ingress(i, 443),
			"egress": []object{
				{"to": []object{{"namespaceSelector": matching("kubernetes.io/metadata.name", c.namespace(7*i))}},
					"ports": []object{{"port": "http"}}},
				{"to": []object{{"ipBlock": object{"cidr": "0.0.0.0/0", "except": []string{"10.0.0.0/8"}}}}},
			},
		},
	})
	return err
}

// ingress are the rules of policy number i: another Deployment of the namespace, a tenth of the cluster's pods, and all
// pods, as monitoring needs it.
func (c policyCluster) ingress(i, port int) []object {
	return []object{
		{"from": []object{
			{"podSelector": matching("app", fmt.Sprintf("app%d", (c.deployment(i)+1)%5))},
			{
				"namespaceSelector": matching("team", fmt.Sprintf("team%d", i%10)),
				"podSelector":       matching("tier", "back"),
			},
		}, "ports": []object{{"port": "http"}, {"port": port}}},
		{"from": []object{{"namespaceSelector": object{}}}, "ports": []object{{"port": 9090}}},
	}
}

func matching(key, value string) object { return object{"matchLabels": object{key: value}} }

func policyName(i int) string { return fmt.Sprintf("p%05d", i) }

// changePolicy changes a port of a policy.
func (c policyCluster) changePolicy(ctx context.Context, i, port int) error {
	_, err := c.admin.Patch(ctx, c.policyPath(i), object{"spec": object{"ingress": c.ingress(i, port)}})
	return err
}

func (c policyCluster) removePolicy(ctx context.Context, i int) error {
	return c.admin.DeleteAll(ctx, c.policyPath(i))
}

func (c policyCluster) policyPath(i int) string {
	return fmt.Sprintf(policiesPath, c.namespace(i)) + "/" + policyName(i)
}
