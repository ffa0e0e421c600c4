package crio

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/containerd/cri/critest"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// bin is where make build and make tools put the programs.
const bin = "../../bin"

func TestMain(m *testing.M) { os.Exit(sandbox.Options{Outside: containerd.Cgroups}.Run(m.Run)) }

// cluster is two nodes with a CRI-O each.
type cluster struct {
	*critest.Cluster
	at []*Runtime
}

func newCluster(t *testing.T, families ...subnet.Family) *cluster {
	t.Helper()
	c := &cluster{}
	c.Cluster = critest.New(t, bin, families, func(ctx context.Context, n *lab.Node, archive, tmp string) (*cri.Runtime, error) {
		r, err := New(ctx, n, Options{Dir: filepath.Join(bin, "crio"), Plugins: bin, Image: archive, Logs: tmp})
		if err != nil {
			return nil, err
		}
		c.at = append(c.at, r)
		return r.Runtime, nil
	})
	version, err := c.At[0].Version(c.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(version)
	return c
}

// TestCRIO goes through the life of a node of both families, so its parts are in an order and share the cluster.
func TestCRIO(t *testing.T) {
	c := newCluster(t, subnet.IPv4, subnet.IPv6)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"NotReady", testNotReady},
		{"Reach", func(t *testing.T, c *cluster) { c.Reach(t) }},
		{"OneNetwork", testOneNetwork},
		{"Ports", testPorts},
		{"Stopped", func(t *testing.T, c *cluster) {
			c.Restart(t, func(r *cri.Runtime) error { return r.Stop(c.Ctx) })
		}},
		{"Killed", func(t *testing.T, c *cluster) {
			c.Restart(t, func(r *cri.Runtime) error { r.Kill(); return nil })
		}},
		{"Crash", testCrash},
		{"Reboot", testReboot},
		{"Lost", testLost},
		{"Dies", testDies},
		{"NoConfiguration", testNoConfiguration},
		{"Check", testCheck},
		{"Others", testOthers},
		{"Settings", testSettings},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, c) }) {
			t.FailNow() // what follows builds on it
		}
	}
}

// printed tells whether CRI-O has printed a text, in all its runs.
func printed(r *cri.Runtime, text string) error {
	log, err := os.ReadFile(r.LogPath())
	if err == nil && !strings.Contains(string(log), text) {
		err = fmt.Errorf("%s: CRI-O has not printed %q", r.Node.Name(), text)
	}
	return err
}

// notReady waits until a node is not ready, for a reason that has the given text in it.
func (c *cluster) notReady(t *testing.T, r *cri.Runtime, reason string) {
	t.Helper()
	c.Eventually(t, "NetworkReady", func() error {
		ready, why, err := r.NetworkReady(c.Ctx)
		if err == nil && (ready || !strings.Contains(why, reason)) {
			err = fmt.Errorf("%s: it is %t (%s), want false because of %q", r.Node.Name(), ready, why, reason)
		}
		return err
	})
}

// testNotReady looks at what keeps pods from a node whose network is not there yet: CRI-O lets them wait.
func testNotReady(t *testing.T, c *cluster) {
	r := c.At[0]
	c.notReady(t, r, "no CNI configuration file")
	type made struct {
		pod *cri.Pod
		err error
	}
	early := make(chan made, 1)
	go func() {
		p, err := r.RunPod(c.Ctx, "early")
		early <- made{p, err}
	}()
	c.Eventually(t, "a pod before its network", func() error { return printed(r, "CNI plugin not ready. Waiting to create") })

	// The configuration is there, and the subnet file is not.
	for _, r := range c.At {
		if err := r.Configure(containerd.Conflist); err != nil {
			t.Fatal(err)
		}
		c.notReady(t, r, "/run/flannel/subnet.env")
	}
	select {
	case m := <-early:
		t.Fatalf("the pod is there before its network: %v, %v", m.pod, m.err)
	default:
	}
	c.GiveSubnets(t)
	m := <-early
	if m.err != nil {
		t.Fatal(m.err)
	}
	c.Remove(t, m.pod)
	c.NothingLeft(t)
}

// testNoConfiguration takes the network configuration away: a node that was ready stays so until CRI-O starts anew. What
// starts without it does not say any more which addresses its pods have, though they keep them.
func testNoConfiguration(t *testing.T, c *cluster) {
	r := c.At[0]
	p, server := c.Serving(t, r, "stays")
	far, _ := c.Serving(t, c.At[1], "far")
	if err := r.Configure(""); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "a pod without a network", func() error {
		q, err := r.RunPod(c.Ctx, "none")
		if err == nil {
			c.Remove(t, q)
			return errors.New("it is made")
		}
		if !strings.Contains(err.Error(), "no CNI configuration file") {
			t.Fatal(err)
		}
		return nil
	})
	c.Ready(t, r, true)

	reports := func(want ...netip.Addr) {
		t.Helper()
		if got, err := p.Reported(c.Ctx); err != nil || !slices.Equal(got, want) {
			t.Errorf("CRI-O reports %s, %v, want %s", got, err, want)
		}
	}
	if err := errors.Join(r.Stop(c.Ctx), r.Start(c.Ctx)); err != nil {
		t.Fatal(err)
	}
	c.notReady(t, r, "no CNI configuration file")
	reports()
	if err := r.Configure(containerd.Conflist); err != nil {
		t.Fatal(err)
	}
	c.Ready(t, r, true)
	reports()
	c.AsksPod(t, server, far)
	if err := errors.Join(r.Stop(c.Ctx), r.Start(c.Ctx)); err != nil {
		t.Fatal(err)
	}
	reports(p.Addrs...)
	c.Ready(t, r, true)
	c.Remove(t, p, far)
	c.NothingLeft(t)
}

// testCheck takes from a pod the routes that CHECK looks for. CRI-O calls CHECK when it starts, and takes the answer for what
// the pod's addresses are.
func testCheck(t *testing.T, c *cluster) {
	r := c.At[0]
	p, _ := c.Serving(t, r, "check")
	path, err := c.pinned(p)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.Node.Output(c.Ctx, "nsenter", "--net="+path, "ip", "route", "flush", "all"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.restart(t, "")
	if got, err := p.Reported(c.Ctx); err != nil || len(got) > 0 {
		t.Errorf("CRI-O reports %s, %v, want no address", got, err)
	}
	if err := printed(r, "CHECK: Failed to find Gateway"); err != nil {
		t.Error(err)
	}
	c.Remove(t, p)
	c.NothingLeft(t)
}

// pinned is the file that holds a pod's network namespace.
func (c *cluster) pinned(p *cri.Pod) (string, error) {
	var info struct {
		RuntimeSpec struct {
			Linux struct{ Namespaces []struct{ Type, Path string } }
		}
	}
	if err := p.Info(c.Ctx, &info); err != nil {
		return "", err
	}
	for _, n := range info.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" && n.Path != "" {
			return n.Path, nil
		}
	}
	return "", errors.New("CRI-O names no network namespace")
}

// testOneNetwork: without pause, a file holds what the containers of a pod share.
func testOneNetwork(t *testing.T, c *cluster) {
	c.OneNetwork(t, func(p *cri.Pod) (string, error) {
		if pid, err := p.PID(c.Ctx); err != nil || pid != 0 {
			t.Errorf("pause has pid %d, %v, want none", pid, err)
		}
		path, err := c.pinned(p)
		if err != nil {
			return "", err
		}
		var stat unix.Stat_t
		err = p.Runtime.Node.Do(func() error { return unix.Stat(path, &stat) })
		return fmt.Sprintf("net:[%d]", stat.Ino), err
	})
}

// TestDaemonSet runs the daemon of one node from the image. Each kind of archive that make image writes is taken.
func TestDaemonSet(t *testing.T) {
	c := newCluster(t, subnet.IPv4)
	c.DaemonSet(t, bin, containerd.Conflist, func(_ *cri.Runtime, a critest.Archives) error {
		return errors.Join(c.at[1].Import(c.Ctx, "docker-archive:"+a.Docker, a.Reference),
			c.at[1].Import(c.Ctx, "oci-archive:"+a.OCI, a.OCIRef))
	})
}
