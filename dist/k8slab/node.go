package k8slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

// Node is a node of the cluster.
type Node struct {
	*lab.Node
	Runtime *containerd.Runtime

	cluster *Cluster
	cgroup  string
	kubelet *lab.Program
	proxy   *lab.Program // nil if none runs
}

// Where things are on each node.
const (
	kubeletKubeconfig = "/etc/kubernetes/kubelet.kubeconfig"
	kubeletConfigFile = "/etc/kubernetes/kubelet.json"
	proxyKubeconfig   = "/etc/kubernetes/kube-proxy.kubeconfig"
	proxyConfigFile   = "/etc/kubernetes/kube-proxy.json"
	staticPods        = "/etc/kubernetes/manifests"
)

// addNode makes a node of the lab one of the cluster, as it is before selvage came to it: it has neither CNI plugins nor
// a network configuration.
func (c *Cluster) addNode(ctx context.Context, at *lab.Node, pods, selvage string) error {
	n := &Node{Node: at, cluster: c}
	if err := at.Stop(ctx); err != nil { // the lab's own daemon; it comes as a pod
		return err
	}
	var err error
	n.Runtime, err = containerd.New(ctx, at, containerd.Options{
		Dir: c.options.Containerd, Plugins: c.options.Bin, Image: pods, Logs: c.logs,
	})
	if err != nil {
		return err
	}
	c.nodes = append(c.nodes, n)
	if err := n.Runtime.Import(ctx, selvage); err != nil {
		return err
	}
	err = at.Do(func() (err error) {
		if err := errors.Join(prepareMounts(), os.RemoveAll("/var/lib/selvage"), os.RemoveAll("/run/flannel"),
			os.RemoveAll(cri.BinDir), os.Mkdir(cri.BinDir, 0o755),
			os.MkdirAll(staticPods, 0o755)); err != nil {
			return err
		}
		if n.cgroup, err = makeCgroup(n.Name()); err != nil {
			return err
		}
		config, err := kubeletConfig(n.cgroup, n.cluster.families())
		return errors.Join(err, c.writeKubeconfig(kubeletKubeconfig, "system:node:"+n.Name()),
			c.writeKubeconfig(proxyKubeconfig, "system:kube-proxy"), os.WriteFile(kubeletConfigFile, config, 0o644))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	return n.startKubelet()
}

func (n *Node) startKubelet() (err error) {
	n.kubelet, err = n.start("kubelet", "--config="+kubeletConfigFile, "--kubeconfig="+kubeletKubeconfig,
		"--hostname-override="+n.Name(), "--node-ip="+joined(n.cluster.families(), n.Addr))
	return err
}

// restartKubelet is what an upgrade of it does.
func (n *Node) restartKubelet(ctx context.Context) error {
	if err := n.stopKubelet(ctx); err != nil {
		return err
	}
	return n.startKubelet()
}

func (n *Node) stopKubelet(ctx context.Context) error {
	if err := n.kubelet.Stop(ctx); err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	n.kubelet = nil
	return nil
}

// startProxy starts kube-proxy in a mode.
func (n *Node) startProxy(mode string) error {
	config, err := proxyConfig(n.Name(), mode, n.cluster.families())
	if err == nil {
		err = n.Do(func() error { return os.WriteFile(proxyConfigFile, config, 0o644) })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	n.proxy, err = n.start("kube-proxy", "--config="+proxyConfigFile)
	return err
}

// stopProxy stops kube-proxy and removes its rules.
func (n *Node) stopProxy(ctx context.Context) error {
	if err := n.proxy.Stop(ctx); err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	n.proxy = nil
	_, err := n.Output(ctx, n.cluster.command("kube-proxy"), "--cleanup")
	return err
}

// start starts a command on the node.
func (n *Node) start(name string, args ...string) (*lab.Program, error) {
	return lab.StartProgram(n.Do, n.cluster.log(n.Name()+"."+name), append([]string{n.cluster.command(name)}, args...))
}

// ended says which of what should run on the node does not.
func (n *Node) ended() error {
	var errs []error
	for _, p := range []*lab.Program{n.kubelet, n.proxy} {
		if p != nil {
			errs = append(errs, p.Err())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	return nil
}

func (n *Node) close() error {
	for _, p := range []*lab.Program{n.kubelet, n.proxy} {
		if p != nil {
			p.Kill()
		}
	}
	return n.Runtime.Close()
}

// log is the file with what a command printed.
func (c *Cluster) log(name string) string { return filepath.Join(c.logs, name+".log") }

// command is the path of one of Kubernetes' commands.
func (c *Cluster) command(name string) string { return filepath.Join(c.options.Bin, "k8s", name) }
