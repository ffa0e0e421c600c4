package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// Pod is a network namespace on a node, connected by the CNI plugins.
type Pod struct {
	*Endpoint
	Node *Node
	// Stderr is what the plugins printed there although they succeeded.
	Stderr string
	// Took is how long the plugins of ADD took together.
	Took time.Duration

	net  *sandbox.Net
	list *libcni.NetworkConfigList
	conf *libcni.RuntimeConf
}

// AddPod makes a pod as a container runtime does: a namespace with lo up, then ADD for each plugin of [Options.CNI]. The name
// must be unique in the lab; if it is empty, one is chosen: pod1, pod2 and so on.
func (l *Lab) AddPod(ctx context.Context, node *Node, name string) (*Pod, error) {
	return l.AddPodWith(ctx, node, PodOptions{Name: name})
}

// PodOptions are those of one pod.
type PodOptions struct {
	Name string // as with [Lab.AddPod]
	CNI  string // instead of [Options.CNI]
	// Plain adds a container that is no pod of Kubernetes, whatever [Options.Namespace] says.
	Plain bool
	// Prepare is called before ADD. do calls a function in the pod's namespaces. added is called at once when ADD has
	// succeeded; nil: nothing is.
	Prepare func(do func(func() error) error) (added func(), err error)
}

// AddPodWith is [Lab.AddPod] with options.
func (l *Lab) AddPodWith(ctx context.Context, node *Node, o PodOptions) (*Pod, error) {
	list, err := libcni.NetworkConfFromBytes([]byte(orDefault(o.CNI, l.options.CNI)))
	if err != nil {
		return nil, fmt.Errorf("CNI configuration: %w", err)
	}
	p := &Pod{Node: node, list: list}
	name, err := l.reserve(o.Name)
	if err != nil {
		return nil, err
	}
	p.conf = &libcni.RuntimeConf{ContainerID: name, IfName: "eth0"}
	if ns := l.options.Namespace; ns != "" && !o.Plain {
		p.conf.Args = [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", ns}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", name},
		}
	}
	if err := l.connect(ctx, p, o.Prepare); err != nil {
		// The CNI specification (section 2, ADD) wants a DEL after an ADD that failed.
		return nil, fmt.Errorf("add pod %s to %s: %w", name, node.name, errors.Join(err, l.disconnect(ctx, p)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods = append(l.pods, p)
	return p, nil
}

// reserve takes a name, so that no other pod gets it, and chooses one if it is empty.
func (l *Lab) reserve(name string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.podNames[name] {
		return "", fmt.Errorf("a pod named %s exists", name)
	}
	for i := 1; name == "" || l.podNames[name]; i++ {
		name = fmt.Sprintf("pod%d", i)
	}
	l.podNames[name] = true
	return name, nil
}

func (l *Lab) connect(ctx context.Context, p *Pod, prepare func(func(func() error) error) (func(), error)) (err error) {
	if p.net, err = p.Node.host.NewNet(); err != nil {
		return err
	}
	p.conf.NetNS = p.net.Path()
	err = p.net.Do(func() error {
		if err := noDAD(); err != nil {
			return err
		}
		return netlinkUp("lo")
	})
	if err != nil {
		return err
	}
	added := func() {}
	if prepare != nil {
		f, err := prepare(p.net.Do)
		if err != nil {
			return err
		}
		if f != nil {
			added = f
		}
	}
	var addrs [2]netip.Addr
	err = l.runPlugins(p, func(cni libcni.CNI) error {
		began := time.Now()
		answer, err := cni.AddNetworkList(ctx, p.list, p.conf)
		if err != nil {
			return err
		}
		p.Took = time.Since(began)
		added()
		result, err := types100.NewResultFromResult(answer)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			addr := addrOf(ip.Address.IP)
			addrs[subnet.FamilyOf(addr)] = addr
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Endpoint, err = newEndpoint(p.Node.name+"/"+p.conf.ContainerID, p.net.Do, addrs)
	if err != nil {
		return err
	}
	p.inOverlay, p.source = true, p.checkSource
	return nil
}

// PodName is the pod's name without the node's.
func (p *Pod) PodName() string { return p.conf.ContainerID }

// checkSource says what is wrong with the source address of a packet of the pod's: outside the overlay, where nobody could
// answer to the pod's own, it is to be the node's.
func (p *Pod) checkSource(seen netip.Addr, to *Endpoint) error {
	want := p.addrs[subnet.FamilyOf(seen)]
	if !to.inOverlay && to != p.Node.Endpoint {
		want = p.Node.addrs[subnet.FamilyOf(seen)]
	}
	if seen != want {
		return fmt.Errorf("the source address seen is %s, want %s", seen, want)
	}
	return nil
}

// runPlugins calls fn inside the node, with a libcni that runs the plugins there and keeps its cache there.
func (l *Lab) runPlugins(p *Pod, fn func(libcni.CNI) error) error {
	var stderr bytes.Buffer
	exec := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: &stderr}, PluginDecoder: version.PluginDecoder{}}
	cni := libcni.NewCNIConfig([]string{l.options.Bin, filepath.Join(l.options.Bin, "cni")}, exec)
	err := p.Node.do(func() error { return fn(cni) })
	p.Stderr += stderr.String()
	if err != nil && stderr.Len() > 0 {
		return fmt.Errorf("%w; stderr: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return err
}

// DelPod removes a pod as a container runtime does: DEL for each plugin, then the namespace.
func (l *Lab) DelPod(ctx context.Context, p *Pod) error {
	if err := l.disconnect(ctx, p); err != nil {
		return fmt.Errorf("delete pod %s: %w", p.conf.ContainerID, err)
	}
	return nil
}

func (l *Lab) disconnect(ctx context.Context, p *Pod) error {
	var errs []error
	if p.net != nil {
		errs = append(errs, l.runPlugins(p, func(cni libcni.CNI) error { return cni.DelNetworkList(ctx, p.list, p.conf) }))
	}
	errs = append(errs, p.close())
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.podNames, p.conf.ContainerID)
	l.pods = slices.DeleteFunc(l.pods, func(other *Pod) bool { return other == p })
	return errors.Join(errs...)
}

// close ends what of the pod is in this process.
func (p *Pod) close() error {
	if p.Endpoint != nil {
		p.Endpoint.close()
	}
	if p.net == nil {
		return nil
	}
	return p.net.Close()
}

// CheckPod asks the plugins whether the pod is still as ADD left it: CHECK for each plugin of [Options.CNI].
func (l *Lab) CheckPod(ctx context.Context, p *Pod) error {
	err := l.runPlugins(p, func(cni libcni.CNI) error { return cni.CheckNetworkList(ctx, p.list, p.conf) })
	if err != nil {
		return fmt.Errorf("check pod %s: %w", p.conf.ContainerID, err)
	}
	return nil
}
