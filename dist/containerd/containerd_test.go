package containerd

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

var dir = flag.String("dir", "", "directory of containerd, its shim and ctr; default: found by PATH")

// bin is where make build and make tools put the programs.
const bin = "../../bin"

func TestMain(m *testing.M) { os.Exit(sandbox.Options{Outside: Cgroups}.Run(m.Run)) }

// TestContainerd goes through the life of a node, so its parts are in an order and share the cluster.
func TestContainerd(t *testing.T) {
	c := newCluster(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"NotReady", testNotReady},
		{"Reach", testReach},
		{"OneNetwork", testOneNetwork},
		{"Ports", testPorts},
		{"Unusable", testUnusable},
		{"Killed", testKilled},
		{"Crash", testCrash},
		{"Lost", testLost},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, c) }) {
			t.FailNow() // what follows builds on it
		}
	}
}

// testNotReady looks at what keeps pods from a node whose network is not there yet.
func testNotReady(t *testing.T, c *cluster) {
	r := c.At[0]
	c.Ready(t, r, false)
	if _, err := r.RunPod(c.Ctx, "early"); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") {
		t.Errorf("a pod without a network configuration: %v", err)
	}
	// The configuration is there, and the subnet file is not.
	for _, r := range c.At {
		if err := r.Configure(Conflist); err != nil {
			t.Fatal(err)
		}
	}
	c.Eventually(t, "the removal of the failed pod", func() error { return r.Tidy(c.Ctx) })
	if !c.asking {
		c.Ready(t, r, true) // containerd 1.6 looks for the configuration and no further
	}
	if _, err := r.RunPod(c.Ctx, "early"); err == nil || !strings.Contains(err.Error(), "/run/flannel/subnet.env") {
		t.Errorf("a pod without a subnet: %v", err)
	}
	if c.asking {
		c.Ready(t, r, false)
	}
	if err := r.Tidy(c.Ctx); err != nil {
		t.Error(err)
	}
	c.NothingLeft(t)

	c.GiveSubnets(t)
}

func testReach(t *testing.T, c *cluster) { c.Reach(t) }

// testOneNetwork: pause holds what the containers of a pod share.
func testOneNetwork(t *testing.T, c *cluster) {
	c.OneNetwork(t, func(p *cri.Pod) (string, error) {
		pause, err := p.PID(c.Ctx)
		if err != nil {
			return "", err
		}
		return cri.NetNS(pause)
	})
}

func testPorts(t *testing.T, c *cluster) { c.Ports(t, true, nil) }

func testKilled(t *testing.T, c *cluster) {
	c.Restart(t, func(r *cri.Runtime) error { r.Kill(); return nil })
}

// testCrash kills containerd and the pod's processes with it: nobody calls DEL then, before the kubelet has the next
// containerd remove the sandbox.
func testCrash(t *testing.T, c *cluster) {
	r := c.At[0]
	p, server := c.Serving(t, r, "crash")
	q, _ := c.Serving(t, r, "paused") // of this one pause alone dies, and containerd sees it
	pids := c.PIDs(t, p, server)
	r.Kill()
	for _, pid := range pids {
		if err := cri.KillProcess(pid); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := r.Left(); err != nil || len(left) == 0 {
		t.Errorf("after the crash nothing is left, so there is nothing to free: %v", err)
	}
	if err := r.Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	pid, err := q.PID(c.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := cri.KillProcess(pid); err != nil {
		t.Fatal(err)
	}
	for _, dead := range []*cri.Pod{p, q} {
		c.Eventually(t, "the end of pause", func() error {
			ready, err := dead.Ready(c.Ctx)
			if err == nil && ready {
				err = fmt.Errorf("containerd takes pod %s for ready", dead.Name)
			}
			return err
		})
	}
	c.Remove(t, p, q)
	c.NothingLeft(t)
}
