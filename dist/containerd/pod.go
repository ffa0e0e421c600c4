package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Port is a port of a pod that is reached at the node's address as well, by UDP and TCP.
type Port struct{ Host, Pod int }

// Pod is a pod sandbox.
type Pod struct {
	Runtime *Runtime
	Name    string
	ID      string
	Addr    netip.Addr // the invalid one in the node's own network
	config  *cri.PodSandboxConfig
}

// RunPod makes a sandbox: containerd makes a network namespace, calls the plugins, and starts pause.
func (r *Runtime) RunPod(ctx context.Context, name string, ports ...Port) (*Pod, error) {
	config := r.sandbox(name)
	for _, p := range ports {
		for _, protocol := range []cri.Protocol{cri.Protocol_UDP, cri.Protocol_TCP} {
			config.PortMappings = append(config.PortMappings,
				&cri.PortMapping{Protocol: protocol, ContainerPort: int32(p.Pod), HostPort: int32(p.Host)})
		}
	}
	return r.runSandbox(ctx, config)
}

// RunHostPod makes a sandbox in the node's own network.
func (r *Runtime) RunHostPod(ctx context.Context, name string) (*Pod, error) {
	config := r.sandbox(name)
	config.Hostname = "" // it is the node's
	config.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	return r.runSandbox(ctx, config)
}

func (r *Runtime) sandbox(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		Hostname: name, DnsConfig: &cri.DNSConfig{}, LogDirectory: r.logs(name),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    r.parent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}},
		},
	}
}

func (r *Runtime) runSandbox(ctx context.Context, config *cri.PodSandboxConfig) (*Pod, error) {
	p := &Pod{Runtime: r, Name: config.Metadata.Name, config: config}
	answer, err := r.pods.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("%s: run pod %s: %w", r.Node.Name(), p.Name, err)
	}
	p.ID = answer.GetPodSandboxId()
	status, err := p.status(ctx)
	if err != nil {
		return nil, err
	}
	if ip := status.GetStatus().GetNetwork().GetIp(); ip != "" {
		if p.Addr, err = netip.ParseAddr(ip); err != nil {
			return nil, fmt.Errorf("%s: pod %s: %w", r.Node.Name(), p.Name, err)
		}
	}
	return p, nil
}

// Tidy removes the sandboxes that are not ready, as the kubelet does. A sandbox whose network could not be made is one as
// long as containerd does not know that the plugins have cleaned up.
func (r *Runtime) Tidy(ctx context.Context) error {
	answer, err := r.pods.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("%s: list the pods: %w", r.Node.Name(), err)
	}
	var errs []error
	for _, s := range answer.GetItems() {
		if s.State != cri.PodSandboxState_SANDBOX_READY {
			errs = append(errs, (&Pod{Runtime: r, Name: s.Metadata.Name, ID: s.Id}).Remove(ctx))
		}
	}
	return errors.Join(errs...)
}

func (p *Pod) status(ctx context.Context) (*cri.PodSandboxStatusResponse, error) {
	answer, err := p.Runtime.pods.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("%s: ask for pod %s: %w", p.Runtime.Node.Name(), p.Name, err)
	}
	return answer, nil
}

// Ready tells whether containerd takes the sandbox for alive.
func (p *Pod) Ready(ctx context.Context) (bool, error) {
	status, err := p.status(ctx)
	return status.GetStatus().GetState() == cri.PodSandboxState_SANDBOX_READY, err
}

// PID is that of pause.
func (p *Pod) PID(ctx context.Context) (int, error) {
	status, err := p.status(ctx)
	if err != nil {
		return 0, err
	}
	return pidOf(status.GetInfo())
}

// pidOf reads what containerd adds to a verbose status.
func pidOf(info map[string]string) (int, error) {
	var v struct{ PID int }
	if err := json.Unmarshal([]byte(info["info"]), &v); err != nil || v.PID == 0 {
		return 0, errors.Join(fmt.Errorf("the status has no pid: %q", info["info"]), err)
	}
	return v.PID, nil
}

// Remove stops and removes the pod, as the kubelet does.
func (p *Pod) Remove(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	_, err := p.Runtime.pods.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("%s: remove pod %s: %w", p.Runtime.Node.Name(), p.Name, err)
	}
	return nil
}

// Stop ends the pod's containers, calls the plugins' DEL, and ends pause.
func (p *Pod) Stop(ctx context.Context) error {
	_, err := p.Runtime.pods.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
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
	return p.RunConfig(ctx, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: Reference},
		Command: append([]string{program}, args...), Linux: &cri.LinuxContainerConfig{},
	})
}

// RunConfig starts a container as it is described.
func (p *Pod) RunConfig(ctx context.Context, config *cri.ContainerConfig) (*Container, error) {
	c := &Container{Pod: p, Name: config.Metadata.Name}
	config.LogPath = c.Name
	made, err := p.Runtime.pods.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.ID, SandboxConfig: p.config, Config: config})
	if err != nil {
		return nil, fmt.Errorf("%s: make container %s/%s: %w", p.Runtime.Node.Name(), p.Name, c.Name, err)
	}
	c.ID = made.GetContainerId()
	if _, err := p.Runtime.pods.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ID}); err != nil {
		return nil, fmt.Errorf("%s: start container %s/%s: %w", p.Runtime.Node.Name(), p.Name, c.Name, err)
	}
	return c, nil
}

// Exec runs the pods' program in the container and returns what it printed.
func (c *Container) Exec(ctx context.Context, args ...string) (string, error) {
	answer, err := c.Pod.Runtime.pods.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.ID, Cmd: append([]string{program}, args...), Timeout: 10})
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
	answer, err := c.Pod.Runtime.pods.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c.ID, Verbose: true})
	if err != nil {
		return 0, err
	}
	return pidOf(answer.GetInfo())
}

// Remove ends the container at once and removes it.
func (c *Container) Remove(ctx context.Context) error {
	_, err := c.Pod.Runtime.pods.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.ID})
	if err == nil {
		_, err = c.Pod.Runtime.pods.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.ID})
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

// netns names the network namespace of a process, as the kernel does.
func netns(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)) }
