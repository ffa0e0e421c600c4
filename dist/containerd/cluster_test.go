package containerd

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// cluster is two nodes with a containerd each. There is no network config in etcd at first, so there is no subnet either.
type cluster struct {
	ctx    context.Context
	lab    *lab.Lab
	at     []*Runtime
	asking bool // the runtime asks the plugins for their STATUS
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	tmp := t.TempDir()
	archive, err := Image(tmp)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Options{Nodes: 2, Bin: bin, Config: "-"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{ctx: ctx, lab: l}
	for _, n := range l.Nodes() {
		r, err := New(ctx, n, Options{Dir: *dir, Plugins: bin, Image: archive, Logs: tmp})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(r.lastLines())
			}
		})
		c.at = append(c.at, r)
	}
	version, err := c.at[0].Version(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.asking = !strings.Contains(version, " 1.") && !strings.Contains(version, " v1.")
	t.Logf("%s, asks for STATUS: %t", version, c.asking)
	return c
}

// eventually waits until check finds nothing wrong.
func (c *cluster) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 20*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (c *cluster) ready(t *testing.T, r *Runtime, want bool) {
	t.Helper()
	c.eventually(t, "NetworkReady", func() error {
		got, why, err := r.NetworkReady(c.ctx)
		if err == nil && got != want {
			err = fmt.Errorf("%s: it is %t, want %t (%s)", r.Node.Name(), got, want, why)
		}
		return err
	})
}

// nothingLeft fails the test unless every node is as it was before its first pod.
func (c *cluster) nothingLeft(t *testing.T) {
	t.Helper()
	for _, r := range c.at {
		left, err := r.Left()
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("%s: left over: %q", r.Node.Name(), left)
		}
	}
}

// serving makes a pod with a container that answers on port 7070.
func (c *cluster) serving(t *testing.T, r *Runtime, name string, ports ...Port) (*Pod, *Container) {
	t.Helper()
	p, err := r.RunPod(c.ctx, name, ports...)
	if err != nil {
		t.Fatal(err)
	}
	server, err := p.Run(c.ctx, "server", "serve", ":7070")
	if err != nil {
		t.Fatal(err)
	}
	return p, server
}

func (c *cluster) remove(t *testing.T, pods ...*Pod) {
	t.Helper()
	for _, p := range pods { // as the kubelet does: until it has succeeded
		c.eventually(t, "the removal of a pod", func() error { return p.Remove(c.ctx) })
	}
}

// asks wants a container to be answered, and the server to see the given address.
func (c *cluster) asks(t *testing.T, from *Container, to netip.Addr, seen netip.Addr) {
	t.Helper()
	c.eventually(t, "the server's start", func() error {
		got, err := from.Exec(c.ctx, "ask", netip.AddrPortFrom(to, 7070).String())
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
