package containerd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
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
	r := c.at[0]
	c.ready(t, r, false)
	if _, err := r.RunPod(c.ctx, "early"); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") {
		t.Errorf("a pod without a network configuration: %v", err)
	}
	// The configuration is there, and the subnet file is not.
	for _, r := range c.at {
		if err := r.Configure(Conflist); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually(t, "the removal of the failed pod", func() error { return r.Tidy(c.ctx) })
	if !c.asking {
		c.ready(t, r, true) // containerd 1.6 looks for the configuration and no further
	}
	if _, err := r.RunPod(c.ctx, "early"); err == nil || !strings.Contains(err.Error(), "/run/flannel/subnet.env") {
		t.Errorf("a pod without a subnet: %v", err)
	}
	if c.asking {
		c.ready(t, r, false)
	}
	if err := r.Tidy(c.ctx); err != nil {
		t.Error(err)
	}
	c.nothingLeft(t)

	if err := c.lab.Etcd().PutConfig(c.ctx, lab.DefaultConfig); err != nil {
		t.Fatal(err)
	}
	if err := c.lab.WaitReady(c.ctx); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.at {
		c.ready(t, r, true)
	}
}

// testReach asks from pods on each node for pods on each, by their own addresses.
func testReach(t *testing.T, c *cluster) {
	var pods []*Pod
	var servers []*Container
	for i := range 4 {
		p, s := c.serving(t, c.at[i%2], fmt.Sprintf("reach%d", i))
		pods, servers = append(pods, p), append(servers, s)
	}
	for i, from := range servers {
		for j, to := range pods {
			if i != j {
				c.asks(t, from, to.Addr, pods[i].Addr)
			}
		}
	}
	for i, p := range pods {
		file, err := p.Runtime.Node.Subnet()
		if err != nil {
			t.Fatal(err)
		}
		if own := file.Subnets[subnet.IPv4].Masked(); !own.Contains(p.Addr) {
			t.Errorf("pod %d has %s, want an address of %s", i, p.Addr, own)
		}
	}
	c.remove(t, pods...)
	c.nothingLeft(t)
}

// testOneNetwork looks at what the containers of a pod share, and who holds it.
func testOneNetwork(t *testing.T, c *cluster) {
	p, server := c.serving(t, c.at[0], "shared")
	other, err := p.Run(c.ctx, "other", "pause")
	if err != nil {
		t.Fatal(err)
	}
	pause, err := p.PID(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, err := netns(pause)
	if err != nil {
		t.Fatal(err)
	}
	for _, container := range []*Container{server, other} {
		if got, err := container.Exec(c.ctx, "netns"); err != nil || got != want {
			t.Errorf("%s is in %s, %v, pause in %s", container.Name, got, err, want)
		}
	}
	local := netip.MustParseAddr("127.0.0.1")
	c.asks(t, other, local, local)

	// Its containers come and go, the network stays.
	if err := server.Remove(c.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(c.ctx, "ask", "127.0.0.1:7070"); err == nil {
		t.Error("a container that was removed answers")
	}
	again, err := p.Run(c.ctx, "again", "serve", ":7070")
	if err != nil {
		t.Fatal(err)
	}
	c.asks(t, other, local, local)
	far, asking := c.serving(t, c.at[1], "far")
	c.asks(t, asking, p.Addr, far.Addr)
	if got, err := again.Exec(c.ctx, "netns"); err != nil || got != want {
		t.Errorf("the new container is in %s, %v, want %s", got, err, want)
	}
	c.remove(t, p, far)
	c.nothingLeft(t)
}

// testPorts reaches a pod at its node's address: from outside, from the other node, from the other node's pod.
func testPorts(t *testing.T, c *cluster) {
	p, _ := c.serving(t, c.at[0], "ports", Port{Host: 8070, Pod: 7070})
	_, asking := c.serving(t, c.at[1], "asking")
	target := netip.AddrPortFrom(c.at[0].Node.Addr(subnet.IPv4), 8070)
	outside := c.lab.Outside()
	for _, network := range []string{"udp", "tcp"} {
		c.eventually(t, "the server's start", func() error {
			got, err := ask(outside.Do, network, target)
			if err == nil && got != outside.Addr(subnet.IPv4).String() {
				t.Fatalf("%s: the pod saw %s, want %s", network, got, outside.Addr(subnet.IPv4))
			}
			return err
		})
		if _, err := ask(c.at[1].Node.Do, network, target); err != nil {
			t.Errorf("%s from the other node: %v", network, err)
		}
	}
	if _, err := asking.Exec(c.ctx, "ask", target.String()); err != nil {
		t.Errorf("from a pod of the other node: %v", err)
	}
	c.remove(t, p, asking.Pod)
	c.nothingLeft(t)
	if _, err := ask(outside.Do, "tcp", target); err == nil {
		t.Error("the port answers after the pod is gone")
	}
}

// ask asks a pod's server from somewhere in the lab.
func ask(do func(func() error) error, network string, target netip.AddrPort) (answer string, err error) {
	err = do(func() error {
		conn, err := net.DialTimeout(network, target.String(), 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		b := make([]byte, 128)
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		n, err := conn.Read(b)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		answer = string(b[:n])
		return err
	})
	return answer, err
}

// testKilled kills containerd under pods that run: they go on, the next containerd knows them, and their DEL frees all.
func testKilled(t *testing.T, c *cluster) {
	a, _ := c.serving(t, c.at[0], "killed-a")
	b, asking := c.serving(t, c.at[1], "killed-b")
	c.asks(t, asking, a.Addr, b.Addr)
	c.at[0].Kill()
	c.asks(t, asking, a.Addr, b.Addr)
	if err := c.at[0].Start(c.ctx); err != nil {
		t.Fatal(err)
	}
	c.asks(t, asking, a.Addr, b.Addr)
	if ready, err := a.Ready(c.ctx); err != nil || !ready {
		t.Errorf("after the crash containerd takes the pod for ready: %t, %v", ready, err)
	}
	c.ready(t, c.at[0], true)
	c.remove(t, a, b)
	c.nothingLeft(t)
}

// testCrash kills containerd and the pod's processes with it: nobody calls DEL then, before the kubelet has the next
// containerd remove the sandbox.
func testCrash(t *testing.T, c *cluster) {
	r := c.at[0]
	p, server := c.serving(t, r, "crash")
	q, _ := c.serving(t, r, "paused") // of this one pause alone dies, and containerd sees it
	var pids []int
	for _, of := range []func(context.Context) (int, error){p.PID, server.PID} {
		pid, err := of(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	r.Kill()
	for _, pid := range pids {
		if err := kill(pid); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := r.Left(); err != nil || len(left) == 0 {
		t.Errorf("after the crash nothing is left, so there is nothing to free: %v", err)
	}
	if err := r.Start(c.ctx); err != nil {
		t.Fatal(err)
	}
	pid, err := q.PID(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := kill(pid); err != nil {
		t.Fatal(err)
	}
	for _, dead := range []*Pod{p, q} {
		c.eventually(t, "the end of pause", func() error {
			ready, err := dead.Ready(c.ctx)
			if err == nil && ready {
				err = fmt.Errorf("containerd takes pod %s for ready", dead.Name)
			}
			return err
		})
	}
	c.remove(t, p, q)
	c.nothingLeft(t)
}
