package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// resultsDir is where libcni, in the container runtime, caches what it passed to the plugins and what they returned.
const resultsDir = "/var/lib/cni/results"

// target is an address to explain, and the name that it was found by.
type target struct {
	address netip.Addr
	origin  string // such as "the gateway of node2's pods"; empty for an address as the user gave it
}

// String returns the address and its origin.
func (t target) String() string { return strings.TrimSuffix(t.address.String()+": "+t.origin, ": ") }

// targets returns what a word stands for, one target for each family: an IP address, a node by the name in its lease,
// or a pod of this node by its container ID, its Kubernetes name, or namespace and name.
func targets(ctx context.Context, c *status.Client, word string) ([]target, error) {
	if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
		return []target{{address: a}}, nil
	}
	nodes, err := nodeSubnets(ctx, c)
	if err != nil {
		return nil, err
	}
	var found []target
	for _, s := range nodes[word] {
		found = append(found, target{subnet.Gateway(s).Addr(), "the gateway of " + word + "'s pods"})
	}
	if len(found) > 0 {
		return found, nil
	}
	pods, err := podsNamed(resultsDir, word)
	if err != nil {
		return nil, err
	}
	if len(pods) > 1 {
		return nil, fmt.Errorf("%q names %d pods of this node: %s; give one of these", word, len(pods), join(pods))
	}
	for _, p := range pods {
		for _, a := range p.addresses {
			found = append(found, target{a, "pod " + p.String()})
		}
	}
	if len(found) == 0 {
		names := make([]string, 0, len(nodes))
		for name := range nodes {
			names = append(names, name)
		}
		return nil, fmt.Errorf("%q is no IP address, no node with a lease, and no pod of this node%s",
			word, didYouMean(word, "", names))
	}
	return found, nil
}

// nodeSubnets returns the subnets of all nodes by name. The data of a rejected lease is not trusted.
func nodeSubnets(ctx context.Context, c *status.Client) (map[string][]netip.Prefix, error) {
	own, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	peers, err := c.Peers(ctx)
	if err != nil {
		return nil, err
	}
	nodes := map[string][]netip.Prefix{}
	if own.Lease != nil {
		nodes[own.Node] = own.Lease.Subnets
	}
	for _, p := range peers {
		if p.State != status.Quarantined && p.Node != "" {
			nodes[p.Node] = append(nodes[p.Node], p.Subnets...)
		}
	}
	return nodes, nil
}

// namedPod is a container's attachment to a network, as the container runtime cached it.
type namedPod struct {
	container       string
	namespace, name string // Kubernetes', if it is a pod of Kubernetes
	addresses       []netip.Addr
}

// String returns the name that is unique.
func (p namedPod) String() string {
	if p.name == "" {
		return p.container
	}
	return cmp.Or(p.namespace, "default") + "/" + p.name
}

// shortestID is how many characters of a container ID identify it, as docker ps and crictl show it.
const shortestID = 12

func (p namedPod) is(word string) bool {
	return word == p.container || len(word) >= shortestID && strings.HasPrefix(p.container, word) ||
		p.name != "" && (word == p.name || word == p.String())
}

// podsNamed reads libcni's cache in dir for the pods that a word names. A file that does not decode, as a power cut can
// leave it, names none.
func podsNamed(dir, word string) (pods []namedPod, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, fmt.Errorf("look for pod %q: %w", word, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // its pod was deleted meanwhile
		}
		p, ok := parseCached(data)
		if !ok || !p.is(word) {
			continue
		}
		// A container with several interfaces has several files.
		if i := slices.IndexFunc(pods, func(other namedPod) bool { return other.container == p.container }); i >= 0 {
			pods[i].addresses = append(pods[i].addresses, p.addresses...)
		} else {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// parseCached decodes a file of libcni's cache (libcni/api.go: cachedInfo), with a result of version 0.3.0 or newer.
func parseCached(data []byte) (p namedPod, ok bool) {
	var cached struct {
		ContainerID string      `json:"containerId"`
		Args        [][2]string `json:"cniArgs"`
		Result      struct {
			IPs []struct {
				Address netip.Prefix `json:"address"`
			} `json:"ips"`
		} `json:"result"`
	}
	if json.Unmarshal(data, &cached) != nil || cached.ContainerID == "" {
		return p, false
	}
	p.container = cached.ContainerID
	for _, arg := range cached.Args {
		switch arg[0] {
		case "K8S_POD_NAMESPACE":
			p.namespace = arg[1]
		case "K8S_POD_NAME":
			p.name = arg[1]
		}
	}
	for _, ip := range cached.Result.IPs {
		if ip.Address.IsValid() {
			p.addresses = append(p.addresses, ip.Address.Addr())
		}
	}
	return p, true
}
