// Package critest has what the tests of container runtimes share: nodes of a lab with a runtime each, and the parts of
// a node's life that are the same under every runtime that speaks CRI.
package critest

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// Cluster is the nodes of a lab with a runtime each.
type Cluster struct {
	Ctx      context.Context
	Lab      *lab.Lab
	At       []*cri.Runtime
	Families []subnet.Family // of the overlay
}

// New makes a lab of two nodes without a network config in etcd, so that there is no subnet either. run starts a runtime on
// a node, with an image of the pods' program from an archive.
func New(t *testing.T, bin string, families []subnet.Family, run func(ctx context.Context, n *lab.Node, archive, tmp string) (*cri.Runtime, error)) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	tmp := t.TempDir()
	archive, err := cri.Image(tmp)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Options{Nodes: 2, Bin: bin, Config: "-", Families: families})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &Cluster{Ctx: ctx, Lab: l, Families: families}
	for _, n := range l.Nodes() {
		r, err := run(ctx, n, archive, tmp)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(r.LastLines())
			}
		})
		c.At = append(c.At, r)
	}
	return c
}

// Eventually waits until check finds nothing wrong.
func (c *Cluster) Eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(c.Ctx, 20*time.Second)
	defer cancel()
	Eventually(ctx, t, what, check)
}

// Eventually waits until check finds nothing wrong, or ctx ends.
func Eventually(ctx context.Context, t *testing.T, what string, check func() error) {
	t.Helper()
	for {
		err := check()
		if err == nil {
			return
		}
		if cri.Pause(ctx) != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Ready waits for the condition NetworkReady.
func (c *Cluster) Ready(t *testing.T, r *cri.Runtime, want bool) {
	t.Helper()
	c.Eventually(t, "NetworkReady", func() error {
		got, why, err := r.NetworkReady(c.Ctx)
		if err == nil && got != want {
			err = fmt.Errorf("%s: it is %t, want %t (%s)", r.Node.Name(), got, want, why)
		}
		return err
	})
}

// NothingLeft fails the test unless every node is as it was before its first pod.
func (c *Cluster) NothingLeft(t *testing.T) {
	t.Helper()
	for _, r := range c.At {
		left, err := r.Left()
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("%s: left over: %q", r.Node.Name(), left)
		}
	}
}

// Serving makes a pod with a container that answers on port 7070.
func (c *Cluster) Serving(t *testing.T, r *cri.Runtime, name string, ports ...cri.Port) (*cri.Pod, *cri.Container) {
	t.Helper()
	p, err := r.RunPod(c.Ctx, name, ports...)
	if err != nil {
		t.Fatal(err)
	}
	server, err := p.Run(c.Ctx, "server", "serve", ":7070")
	if err != nil {
		t.Fatal(err)
	}
	return p, server
}

// Remove removes pods as the kubelet does: again, until it has succeeded.
func (c *Cluster) Remove(t *testing.T, pods ...*cri.Pod) {
	t.Helper()
	for _, p := range pods {
		c.Eventually(t, "the removal of a pod", func() error { return p.Remove(c.Ctx) })
	}
}

// Asks wants a container to be answered, and the server to see the given address.
func (c *Cluster) Asks(t *testing.T, from *cri.Container, to netip.Addr, seen netip.Addr) {
	t.Helper()
	c.Eventually(t, "the server's start", func() error {
		got, err := from.Exec(c.Ctx, "ask", netip.AddrPortFrom(to, 7070).String())
		if err != nil {
			if strings.Contains(err.Error(), "connection refused") {
				return err
			}
			t.Fatal(err)
		}
		if got != seen.String() {
			t.Fatalf("%s saw %s, want %s", to, got, seen)
		}
		return nil
	})
}

// AsksPod wants a container to reach a pod in every family, by its own address.
func (c *Cluster) AsksPod(t *testing.T, from *cri.Container, to *cri.Pod) {
	t.Helper()
	for i := range c.Families {
		c.Asks(t, from, to.Addrs[i], from.Pod.Addrs[i])
	}
}

// PIDs are those of pause and of the given containers; pause is left out if there is none.
func (c *Cluster) PIDs(t *testing.T, p *cri.Pod, containers ...*cri.Container) (pids []int) {
	t.Helper()
	if pid, err := p.PID(c.Ctx); err != nil {
		t.Fatal(err)
	} else if pid != 0 {
		pids = append(pids, pid)
	}
	for _, container := range containers {
		pid, err := container.PID(c.Ctx)
		if err != nil || pid == 0 {
			t.Fatalf("the pid of %s/%s: %d, %v", p.Name, container.Name, pid, err)
		}
		pids = append(pids, pid)
	}
	return pids
}
