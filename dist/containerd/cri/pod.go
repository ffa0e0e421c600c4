package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Port is a port of a pod that is reached at the node's address as well, by UDP and TCP.
type Port struct{ Host, Pod int }

// Pod is a pod sandbox.
type Pod struct {
	Runtime *Runtime
	Name    string
	ID      string
	Addr    netip.Addr   // the first of Addrs; the invalid one in the node's own network
	Addrs   []netip.Addr // what the kubelet is told, in the runtime's order
	config  *api.PodSandboxConfig
}

// RunPod makes a sandbox: the runtime makes a network namespace, calls the plugins, and starts pause if it needs one.
func (r *Runtime) RunPod(ctx context.Context, name string, ports ...Port) (*Pod, error) {
	config := r.sandbox(name)
	for _, p := range ports {
		for _, protocol := range []api.Protocol{api.Protocol_UDP, api.Protocol_TCP} {
			config.PortMappings = append(config.PortMappings,
				&api.PortMapping{Protocol: protocol, ContainerPort: int32(p.Pod), HostPort: int32(p.Host)})
		}
	}
	return r.runSandbox(ctx, config)
}

// RunHostPod makes a sandbox in the node's own network.
func (r *Runtime) RunHostPod(ctx context.Context, name string) (*Pod, error) {
	config := r.sandbox(name)
	config.Hostname = "" // it is the node's
	config.Linux.SecurityContext.NamespaceOptions.Network = api.NamespaceMode_NODE
	return r.runSandbox(ctx, config)
}

func (r *Runtime) sandbox(name string) *api.PodSandboxConfig {
	return &api.PodSandboxConfig{
		Metadata: &api.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		Hostname: name, DnsConfig: &api.DNSConfig{}, LogDirectory: r.logs(name),
		Linux: &api.LinuxPodSandboxConfig{
			CgroupParent:    r.options.Cgroup,
			SecurityContext: &api.LinuxSandboxSecurityContext{NamespaceOptions: namespaces()},
		},
	}
}

// namespaces are what the kubelet asks for if a pod says nothing: a network for the pod, process ids for each container.
func namespaces() *api.NamespaceOption { return &api.NamespaceOption{Pid: api.NamespaceMode_CONTAINER} }

func (r *Runtime) runSandbox(ctx context.Context, config *api.PodSandboxConfig) (*Pod, error) {
	p := &Pod{Runtime: r, Name: config.Metadata.Name, config: config}
	answer, err := r.pods.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("%s: run pod %s: %w", r.Node.Name(), p.Name, err)
	}
	p.ID = answer.GetPodSandboxId()
	status, err := p.status(ctx)
	if err != nil {
		return nil, err
	}
	if p.Addrs, err = addresses(status.GetStatus().GetNetwork()); err != nil {
		return nil, fmt.Errorf("%s: pod %s: %w", r.Node.Name(), p.Name, err)
	}
	if len(p.Addrs) > 0 {
		p.Addr = p.Addrs[0]
	}
	return p, nil
}

// addresses are those that the runtime reports of a pod; none in the node's own network.
func addresses(network *api.PodSandboxNetworkStatus) (all []netip.Addr, err error) {
	texts := []string{network.GetIp()}
	for _, more := range network.GetAdditionalIps() {
		texts = append(texts, more.GetIp())
	}
	for _, text := range texts {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, addr)
	}
	return all, nil
}

// Reported asks the runtime anew for the pod's addresses.
func (p *Pod) Reported(ctx context.Context) ([]netip.Addr, error) {
	status, err := p.status(ctx)
	if err != nil {
		return nil, err
	}
	return addresses(status.GetStatus().GetNetwork())
}

// Tidy removes the sandboxes that are not ready, as the kubelet does. A sandbox whose network could not be made is one as
// long as the runtime does not know that the plugins have cleaned up.
func (r *Runtime) Tidy(ctx context.Context) error {
	return r.removeIf(ctx, func(state api.PodSandboxState) bool { return state != api.PodSandboxState_SANDBOX_READY })
}

// RemoveAll removes every sandbox.
func (r *Runtime) RemoveAll(ctx context.Context) error {
	return r.removeIf(ctx, func(api.PodSandboxState) bool { return true })
}

func (r *Runtime) removeIf(ctx context.Context, unwanted func(api.PodSandboxState) bool) error {
	answer, err := r.pods.ListPodSandbox(ctx, &api.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("%s: list the pods: %w", r.Node.Name(), err)
	}
	var errs []error
	for _, s := range answer.GetItems() {
		if unwanted(s.State) {
			errs = append(errs, (&Pod{Runtime: r, Name: s.Metadata.Name, ID: s.Id}).Remove(ctx))
		}
	}
	return errors.Join(errs...)
}

func (p *Pod) status(ctx context.Context) (*api.PodSandboxStatusResponse, error) {
	answer, err := p.Runtime.pods.PodSandboxStatus(ctx, &api.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("%s: ask for pod %s: %w", p.Runtime.Node.Name(), p.Name, err)
	}
	return answer, nil
}

// Ready tells whether the runtime takes the sandbox for alive.
func (p *Pod) Ready(ctx context.Context) (bool, error) {
	status, err := p.status(ctx)
	return status.GetStatus().GetState() == api.PodSandboxState_SANDBOX_READY, err
}

// PID is that of pause; 0 if the runtime has none.
func (p *Pod) PID(ctx context.Context) (int, error) {
	var v struct{ PID int }
	err := p.Info(ctx, &v)
	return v.PID, err
}

// Info reads what the runtime adds to a verbose status, in a form of its own, into v.
func (p *Pod) Info(ctx context.Context, v any) error {
	status, err := p.status(ctx)
	if err != nil {
		return err
	}
	return readInfo(status.GetInfo(), v)
}

func readInfo(info map[string]string, v any) error {
	if err := json.Unmarshal([]byte(info["info"]), v); err != nil {
		return fmt.Errorf("what the runtime adds to the status: %w: %q", err, info["info"])
	}
	return nil
}

// Remove stops and removes the pod, as the kubelet does.
func (p *Pod) Remove(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	_, err := p.Runtime.pods.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("%s: remove pod %s: %w", p.Runtime.Node.Name(), p.Name, err)
	}
	return nil
}

// Stop ends the pod's containers, calls the plugins' DEL, and ends pause.
func (p *Pod) Stop(ctx context.Context) error {
	_, err := p.Runtime.pods.StopPodSandbox(ctx, &api.StopPodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("%s: stop pod %s: %w", p.Runtime.Node.Name(), p.Name, err)
	}
	return nil
}

// Container is one of a pod's.
type Container struct {
	Pod  *Pod
	Name string
	ID   string
}

// Run starts a container that runs the pods' program with the given arguments.
func (p *Pod) Run(ctx context.Context, name string, args ...string) (*Container, error) {
	return p.RunConfig(ctx, &api.ContainerConfig{
		Metadata: &api.ContainerMetadata{Name: name}, Image: &api.ImageSpec{Image: Reference},
		Command: append([]string{PodProgram}, args...),
		Linux:   &api.LinuxContainerConfig{SecurityContext: &api.LinuxContainerSecurityContext{NamespaceOptions: namespaces()}},
	})
}

// RunConfig starts a container as it is described.
func (p *Pod) RunConfig(ctx context.Context, config *api.ContainerConfig) (*Container, error) {
	c := &Container{Pod: p, Name: config.Metadata.Name}
	config.LogPath = c.Name
	made, err := p.Runtime.pods.CreateContainer(ctx, &api.CreateContainerRequest{PodSandboxId: p.ID, SandboxConfig: p.config, Config: config})
	if err != nil {
		return nil, fmt.Errorf("%s: make container %s/%s: %w", p.Runtime.Node.Name(), p.Name, c.Name, err)
	}
	c.ID = made.GetContainerId()
	if _, err := p.Runtime.pods.StartContainer(ctx, &api.StartContainerRequest{ContainerId: c.ID}); err != nil {
		return nil, fmt.Errorf("%s: start container %s/%s: %w", p.Runtime.Node.Name(), p.Name, c.Name, err)
	}
	return c, nil
}

// Exec runs the pods' program in the container and returns what it printed.
func (c *Container) Exec(ctx context.Context, args ...string) (string, error) {
	answer, err := c.Pod.Runtime.pods.ExecSync(ctx, &api.ExecSyncRequest{ContainerId: c.ID, Cmd: append([]string{PodProgram}, args...), Timeout: 10})
	if err == nil && answer.GetExitCode() != 0 {
		err = fmt.Errorf("exit code %d: %s", answer.GetExitCode(), strings.TrimSpace(string(answer.GetStderr())))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %s/%s: %s: %w", c.Pod.Runtime.Node.Name(), c.Pod.Name, c.Name, strings.Join(args, " "), err)
	}
	return string(answer.GetStdout()), nil
}

// PID is that of the container's first process.
func (c *Container) PID(ctx context.Context) (int, error) {
	answer, err := c.Pod.Runtime.pods.ContainerStatus(ctx, &api.ContainerStatusRequest{ContainerId: c.ID, Verbose: true})
	if err != nil {
		return 0, err
	}
	var v struct{ PID int }
	err = readInfo(answer.GetInfo(), &v)
	return v.PID, err
}

// Remove ends the container at once and removes it.
func (c *Container) Remove(ctx context.Context) error {
	_, err := c.Pod.Runtime.pods.StopContainer(ctx, &api.StopContainerRequest{ContainerId: c.ID})
	if err == nil {
		_, err = c.Pod.Runtime.pods.RemoveContainer(ctx, &api.RemoveContainerRequest{ContainerId: c.ID})
	}
	return err
}

// Log is what the container has printed.
func (c *Container) Log() (text string) {
	_ = c.Pod.Runtime.Node.Do(func() error { // it fails only if the node is gone
		text = readLog(filepath.Join(c.Pod.Runtime.logs(c.Pod.Name), c.Name))
		return nil
	})
	return text
}

// logs is the directory, on the node, of what a pod's containers print.
func (r *Runtime) logs(pod string) string { return filepath.Join("/run/pods", pod) }

// NetNS names the network namespace of a process, as the kernel does.
func NetNS(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)) }
