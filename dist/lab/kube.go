package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// Kube is a stand-in for the Kubernetes API server, in this process, on 172.31.0.1:6443, or in a lab of IPv6 alone on
// [fd00:31::1]:6443. Each node has a Node with a podCIDR, as the controller manager gives them.
type Kube struct {
	server  *kubetest.Server
	account *account // nil: it speaks in the clear, to everybody

	mu      sync.Mutex
	running bool
	config  string                     // as last written; "": not yet
	nodes   []func(func() error) error // where their files are
	absent  map[string]string          // the UIDs of the Nodes that PutLeases has made, by name
}

// NetConfPath is the file with the network config on each node, as a ConfigMap would be mounted there.
const NetConfPath = "/run/kube-flannel/net-conf.json"

// startKube starts the server on the address host. With a directory, it speaks TLS, with files there.
func startKube(host netip.Addr, dir string) (_ *Kube, err error) {
	k, o := &Kube{absent: map[string]string{}}, kubetest.Options{}
	if dir != "" {
		if k.account, o, err = newAccount(dir, host.String()); err != nil {
			return nil, err
		}
	}
	o.Address = net.JoinHostPort(host.String(), "6443")
	k.server = kubetest.New(o)
	return k, k.Start(context.Background())
}

// podCIDRs are the subnets of node number i, from 0, in the networks of [NetworkConfig].
func podCIDRs(i int, families []subnet.Family) (all []string) {
	for _, f := range orIPv4(families) {
		all = append(all, [...]string{subnet.IPv4: fmt.Sprintf("10.5.%d.0/24", i+1), subnet.IPv6: fmt.Sprintf("fd00:5:0:%x::/64", i+1)}[f])
	}
	return all
}

// Server is the stand-in, for what can be done to it besides.
func (k *Kube) Server() *kubetest.Server { return k.server }

// PutConfig implements [Store]: it replaces the file on each node, as a whole.
func (k *Kube) PutConfig(_ context.Context, config string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = config
	for _, do := range k.nodes {
		if err := k.writeConfig(do); err != nil {
			return err
		}
	}
	return nil
}

// writeConfig writes the network config on one node.
func (k *Kube) writeConfig(do func(func() error) error) error {
	if k.config == "" {
		return nil
	}
	err := do(func() error { return wholefile.ReplaceUnsynced(NetConfPath, []byte(k.config), 0o755) })
	if err != nil {
		return fmt.Errorf("write the network configuration: %w", err)
	}
	return nil
}

// errAll ends a watch that has reported all leases.
var errAll = errors.New("that is all")

// Leases implements [Store].
func (k *Kube) Leases(ctx context.Context) (leases []subnet.Lease, err error) {
	s, err := kube.New(kube.Options{API: k.api(), Node: "lab", NetConfPath: "/nowhere"})
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	defer s.Close()
	err = s.Watch(ctx, func(e subnet.Event) error {
		if e.Own {
			return nil // it comes again with all others
		}
		for _, r := range e.Put {
			if r.Bad != nil {
				return fmt.Errorf("read the leases: Node %s: %w", r.Name, r.Bad)
			}
			leases = append(leases, r.Lease)
		}
		if e.Type == subnet.Synced {
			return errAll
		}
		return nil
	})
	if !errors.Is(err, errAll) {
		return nil, errors.Join(err, ctx.Err())
	}
	slices.SortFunc(leases, byNodeName)
	return leases, nil
}

// PutLeases implements [Store]: it makes a Node for each lease, named as the lease is, and annotates it.
func (k *Kube) PutLeases(ctx context.Context, leases []subnet.Lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	admin := k.Admin()
	for _, l := range leases {
		uid, exists := k.absent[l.NodeName]
		if !exists {
			n := kubetest.Node{Name: l.NodeName}
			for _, f := range subnet.Families() {
				if l.Has(f) {
					n.PodCIDRs = append(n.PodCIDRs, l.Endpoints[f].Subnet.String())
				}
			}
			o, err := admin.CreateNode(ctx, n)
			if err != nil {
				return fmt.Errorf("make Node %s: %w", l.NodeName, err)
			}
			uid = o.Metadata.UID
			k.absent[l.NodeName] = uid
		}
		if _, err := admin.Annotate(ctx, l.NodeName, NodeAnnotations(l, uid)); err != nil {
			return fmt.Errorf("write a lease: %w", err)
		}
	}
	return nil
}

// DeleteLeases implements [Store]: it deletes the leases' Nodes.
func (k *Kube) DeleteLeases(ctx context.Context, leases []subnet.Lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range leases {
		if err := k.Admin().DeleteNode(ctx, l.NodeName); err != nil {
			return fmt.Errorf("delete a lease: %w", err)
		}
		delete(k.absent, l.NodeName)
	}
	return nil
}

// Version implements [Store].
func (k *Kube) Version(ctx context.Context, l subnet.Lease) (int64, error) {
	o, err := k.Admin().Node(ctx, l.NodeName)
	if err != nil {
		return 0, fmt.Errorf("read the lease of %s: %w", l.NodeName, err)
	}
	return strconv.ParseInt(o.Metadata.ResourceVersion, 10, 64)
}

// NodeAnnotations are those of flannel and of selvage for a lease on a Node with that UID, as a daemon writes them.
func NodeAnnotations(l subnet.Lease, uid string) map[string]any {
	all := map[string]any{
		kube.DefaultPrefix + "kube-subnet-manager": "true", kube.DefaultPrefix + "backend-type": l.BackendType,
		// In the order in which selvage writes it.
		kube.LeaseAnnotation: fmt.Sprintf(`{"UID":%q,"InstanceID":%q}`, uid, l.InstanceID),
	}
	if l.InstanceID == "" {
		all[kube.LeaseAnnotation] = fmt.Sprintf(`{"UID":%q}`, uid)
	}
	var subnets []string
	for _, f := range subnet.Families() {
		if !l.Has(f) {
			continue
		}
		e := l.Endpoints[f]
		all[kube.DefaultPrefix+[...]string{"backend-data", "backend-v6-data"}[f]] = cmp.Or(e.Data, "null")
		all[kube.DefaultPrefix+[...]string{"public-ip", "public-ipv6"}[f]] = e.PublicIP.String()
		subnets = append(subnets, e.Subnet.String())
	}
	all[kube.PodCIDRsAnnotation] = strings.Join(subnets, ",")
	return all
}

// Kill implements [Store].
func (k *Kube) Kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running {
		k.server.Stop()
		k.running = false
	}
}

// Start implements [Store].
func (k *Kube) Start(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running {
		return nil
	}
	if err := k.server.Start(); err != nil {
		return fmt.Errorf("start the API server: %w", err)
	}
	k.running = true
	return nil
}

func (k *Kube) close() error {
	k.Kill()
	if k.account != nil {
		k.account.client.CloseIdleConnections()
	}
	return nil
}

// addNode makes a Node for node number i, from 0, and gives the node where do leads to its network config.
func (k *Kube) addNode(ctx context.Context, name string, i int, families []subnet.Family, do func(func() error) error) error {
	n := kubetest.Node{Name: name, PodCIDRs: podCIDRs(i, families)}
	if _, err := k.Admin().CreateNode(ctx, n); err != nil {
		return fmt.Errorf("make Node %s: %w", name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes = append(k.nodes, do)
	return errors.Join(k.giveToken(do, firstToken), k.writeConfig(do))
}

// daemonArgs are what a node's daemon needs to use the store, and its environment.
func (k *Kube) daemonArgs(name string) (args, environment []string) {
	return []string{"--kube-subnet-mgr", "--kube-api-url", k.server.URL(), "--net-config-path", NetConfPath},
		[]string{"NODE_NAME=" + name}
}
