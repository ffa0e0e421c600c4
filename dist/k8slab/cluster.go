package k8slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// Options describe a cluster and where its parts are.
type Options struct {
	Bin        string // directory of selvaged, selvage, etcd, etcdutl, cni/, k8s/ and image/
	Store      subnet.StoreKind
	Manifest   string // of the DaemonSet, for this store
	Image      string // archive of the image that the manifest names; default: that of make image
	Rendered   string // what else the chart can come to, a file or directory, for the apiserver to look at
	Containerd string // directory of containerd, its shim and ctr; default: found by PATH
	Nodes      int    // default 3
	// Families are those of pods, services and nodes, the first of them the one that Kubernetes prefers; default IPv4.
	Families []subnet.Family
	Policies string // the daemons' --network-policy; default: the manifest's
	FastPath bool   // the daemons have --fast-path=on
	Logs     string // directory for what the commands print; default one that ends with the sandbox
}

// Cluster is a running Kubernetes.
type Cluster struct {
	options Options
	lab     *lab.Lab
	dir     string // the control plane's files
	logs    string

	manifest  string // the DaemonSet's, for this cluster
	server    string // the apiserver's URL
	authority []byte // the certificate of who signed its
	tokens    map[string]string
	keys      []string                // of service accounts: the first one signs
	control   map[string]*lab.Program // what should run, by the name of its command
	nodes     []*Node
}

// New starts a cluster without a network: there is no network config in etcd, and nothing of selvage's on any node. It does
// not wait for the nodes.
func New(ctx context.Context, o Options) (*Cluster, error) {
	var err error
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return nil, err
	}
	c := &Cluster{options: o, control: map[string]*lab.Program{}}
	if err := c.build(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) build(ctx context.Context) (err error) {
	for _, name := range commands() {
		if _, err := os.Stat(c.command(name)); err != nil {
			return fmt.Errorf("a cluster needs Kubernetes' commands: %w: run make e2e-kubernetes", err)
		}
	}
	if c.dir, err = os.MkdirTemp("/run", "k8s-"); err != nil {
		return err
	}
	if c.logs = c.options.Logs; c.logs == "" {
		c.logs = filepath.Join(c.dir, "logs")
	}
	if err := os.MkdirAll(c.logs, 0o755); err != nil {
		return err
	}
	pods, err := c.packPods()
	if err != nil {
		return err
	}
	c.lab, err = lab.New(ctx, lab.Options{Nodes: c.options.Nodes, Families: c.options.Families, Bin: c.options.Bin, Config: "-"})
	if err != nil {
		return err
	}
	if c.manifest, err = c.readManifest(); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	for _, n := range c.lab.Nodes() {
		if err := c.addNode(ctx, n, pods, c.selvage()); err != nil {
			return err
		}
	}
	return c.closeEtcd(ctx)
}

// families are those of the cluster.
func (c *Cluster) families() []subnet.Family { return c.lab.Families() }

// commands are those of Kubernetes that a cluster needs.
func commands() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "kube-proxy"}
}

// Close ends everything.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.close())
	}
	for _, p := range c.control {
		p.Kill()
	}
	if c.lab != nil {
		errs = append(errs, c.lab.Close())
	}
	return errors.Join(errs...)
}

// ended says which of what should run does not.
func (c *Cluster) ended() error {
	var errs []error
	for _, p := range c.control {
		errs = append(errs, p.Err())
	}
	for _, n := range c.nodes {
		errs = append(errs, n.ended())
	}
	return errors.Join(errs...)
}

// errStop ends a wait that is in vain.
var errStop = errors.New("in vain")

// deadline is how long anything is waited for. Nothing depends on how soon it is: a busy machine takes minutes for what
// an idle one does in seconds.
const deadline = 5 * time.Minute

// eventually waits until check finds nothing wrong.
func (c *Cluster) eventually(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if errors.Is(err, errStop) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		}
	}
}
