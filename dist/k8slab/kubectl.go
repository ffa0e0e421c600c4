package k8slab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kubectl runs it as the cluster's administrator and returns what it printed.
func (c *Cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectlWith(ctx, "", args...)
}

// kubectlWith gives it something to read.
func (c *Cluster) kubectlWith(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.command("kubectl"), args...)
	cmd.Env = append(os.Environ(), c.Environment()...)
	cmd.Stdin = strings.NewReader(stdin)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problems.Bytes()))
	}
	return string(out), err
}

// Environment is what kubectl is to be run with.
func (c *Cluster) Environment() []string {
	return []string{
		"KUBECONFIG=" + c.kubeconfig("admin"), "KUBECACHEDIR=" + filepath.Join(c.dir, "cache"),
		"PATH=" + filepath.Dir(c.command("kubectl")) + ":" + os.Getenv("PATH"),
	}
}

// apply applies manifests.
func (c *Cluster) apply(ctx context.Context, manifest string) error {
	_, err := c.kubectlWith(ctx, manifest, "apply", "-f", "-")
	return err
}

// get reads objects.
func (c *Cluster) get(ctx context.Context, to any, args ...string) error {
	out, err := c.kubectl(ctx, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), to); err != nil {
		return fmt.Errorf("kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// rollout waits until a workload is as its spec says.
func (c *Cluster) rollout(ctx context.Context, namespace, what string) error {
	_, err := c.kubectl(ctx, "-n", namespace, "rollout", "status", what, timeout())
	return err
}

func timeout() string { return "--timeout=" + deadline.String() }

// condition is one of an object's.
type condition struct{ Type, Status, Reason, Message string }

// nodeList is what is read of nodes.
type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Status   struct {
			Conditions []condition
			NodeInfo   struct{ KubeletVersion, ContainerRuntimeVersion string }
		}
	}
}

// podList is what is read of pods.
type podList struct {
	Items []struct {
		Metadata struct {
			Name, UID string
			Deleted   *time.Time `json:"deletionTimestamp"`
		}
		Spec struct {
			NodeName    string
			HostNetwork bool
		}
		Status struct {
			Phase             string
			PodIPs            []struct{ IP string }
			Conditions        []condition
			ContainerStatuses []struct{ RestartCount int }
		}
	}
}

// ready is the condition of that name.
func ready(list []condition) condition {
	for _, c := range list {
		if c.Type == "Ready" {
			return c
		}
	}
	return condition{Type: "Ready", Status: "Unknown"}
}
