package critest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// GiveSubnets writes the network config, and waits until every node has a subnet and its runtime is ready.
func (c *Cluster) GiveSubnets(t *testing.T) {
	t.Helper()
	if err := c.Lab.Etcd().PutConfig(c.Ctx, lab.NetworkConfig(c.Families, "", lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	if err := c.Lab.WaitReady(c.Ctx); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.At {
		c.Ready(t, r, true)
	}
}

// Reach asks from pods on each node for pods on each, by their own addresses. What the runtime reports of them is of the
// node's subnets, in each family.
func (c *Cluster) Reach(t *testing.T) {
	var pods []*cri.Pod
	var servers []*cri.Container
	for i := range 4 {
		p, s := c.Serving(t, c.At[i%2], fmt.Sprintf("reach%d", i))
		pods, servers = append(pods, p), append(servers, s)
		c.addressed(t, p)
	}
	for i, from := range servers {
		for j, to := range pods {
			if i != j {
				c.AsksPod(t, from, to)
			}
		}
	}
	c.Remove(t, pods...)
	c.NothingLeft(t)
}

// addressed compares what the runtime reports of a pod with the node's subnet file.
func (c *Cluster) addressed(t *testing.T, p *cri.Pod) {
	t.Helper()
	file, err := p.Runtime.Node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Addrs) != len(c.Families) {
		t.Fatalf("pod %s has %s, want an address of each of %d families", p.Name, p.Addrs, len(c.Families))
	}
	for i, f := range c.Families {
		if own := file.Subnets[f].Masked(); !own.Contains(p.Addrs[i]) {
			t.Errorf("pod %s has %s, want an address of %s", p.Name, p.Addrs[i], own)
		}
	}
}

// OneNetwork looks at what the containers of a pod share. holder is where the kernel has the pod's network namespace for the
// runtime, as netns names it.
func (c *Cluster) OneNetwork(t *testing.T, holder func(*cri.Pod) (string, error)) {
	p, server := c.Serving(t, c.At[0], "shared")
	other, err := p.Run(c.Ctx, "other", "pause")
	if err != nil {
		t.Fatal(err)
	}
	want, err := holder(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, container := range []*cri.Container{server, other} {
		if got, err := container.Exec(c.Ctx, "netns"); err != nil || got != want {
			t.Errorf("%s is in %s, %v, the sandbox in %s", container.Name, got, err, want)
		}
	}
	local := netip.MustParseAddr("127.0.0.1")
	c.Asks(t, other, local, local)

	// Its containers come and go, the network stays.
	if err := server.Remove(c.Ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(c.Ctx, "ask", "127.0.0.1:7070"); err == nil {
		t.Error("a container that was removed answers")
	}
	again, err := p.Run(c.Ctx, "again", "serve", ":7070")
	if err != nil {
		t.Fatal(err)
	}
	c.Asks(t, other, local, local)
	far, asking := c.Serving(t, c.At[1], "far")
	c.AsksPod(t, asking, p)
	if got, err := again.Exec(c.Ctx, "netns"); err != nil || got != want {
		t.Errorf("the new container is in %s, %v, want %s", got, err, want)
	}
	c.Remove(t, p, far)
	c.NothingLeft(t)
}

// Ports reaches a pod at its node's address: from outside, from the other node and its pod, and from its own node;
// with hairpin also from the pod itself. meanwhile is called while it is reached.
func (c *Cluster) Ports(t *testing.T, hairpin bool, meanwhile func(*testing.T, *cri.Pod)) {
	p, server := c.Serving(t, c.At[0], "ports", cri.Port{Host: 8070, Pod: 7070})
	_, asking := c.Serving(t, c.At[1], "asking")
	outside := c.Lab.Outside()
	target := func(f subnet.Family) netip.AddrPort { return netip.AddrPortFrom(c.At[0].Node.Addr(f), 8070) }
	for _, f := range c.Families {
		for _, network := range []string{"udp", "tcp"} {
			c.Eventually(t, "the server's start", func() error {
				got, err := Ask(outside.Do, network, target(f))
				if err == nil && got != outside.Addr(f).String() {
					t.Fatalf("%s: the pod saw %s, want %s", network, got, outside.Addr(f))
				}
				return err
			})
			if _, err := Ask(c.At[1].Node.Do, network, target(f)); err != nil {
				t.Errorf("%s from the other node: %v", network, err)
			}
		}
		if _, err := asking.Exec(c.Ctx, "ask", target(f).String()); err != nil {
			t.Errorf("from a pod of the other node: %v", err)
		}
		if hairpin {
			if _, err := server.Exec(c.Ctx, "ask", target(f).String()); err != nil {
				t.Errorf("from the pod itself: %v", err)
			}
		}
		if _, err := Ask(c.At[0].Node.Do, "tcp", target(f)); err != nil {
			t.Errorf("from its node: %v", err)
		}
	}
	if meanwhile != nil {
		meanwhile(t, p)
	}
	c.Remove(t, p, asking.Pod)
	c.NothingLeft(t)
	for _, f := range c.Families {
		if _, err := Ask(outside.Do, "tcp", target(f)); err == nil {
			t.Errorf("%s answers after the pod is gone", target(f))
		}
	}
}

// Ask asks a pod's server from somewhere in the lab, once.
func Ask(do func(func() error) error, network string, target netip.AddrPort) (answer string, err error) {
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

// Restart has a runtime end under pods that run, and another begin: they go on, the next one knows them and their addresses,
// and their DEL frees all.
func (c *Cluster) Restart(t *testing.T, end func(*cri.Runtime) error) {
	a, _ := c.Serving(t, c.At[0], "restart-a")
	b, asking := c.Serving(t, c.At[1], "restart-b")
	c.AsksPod(t, asking, a)
	if err := end(c.At[0]); err != nil {
		t.Fatal(err)
	}
	c.AsksPod(t, asking, a)
	if err := c.At[0].Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.AsksPod(t, asking, a)
	if ready, err := a.Ready(c.Ctx); err != nil || !ready {
		t.Errorf("afterwards the runtime takes the pod for ready: %t, %v", ready, err)
	}
	if addrs, err := a.Reported(c.Ctx); err != nil || !slices.Equal(addrs, a.Addrs) {
		t.Errorf("afterwards the runtime reports %s, %v, before %s", addrs, err, a.Addrs)
	}
	c.Ready(t, c.At[0], true)

	// Whoever comes now gets an address that nobody has.
	more, _ := c.Serving(t, c.At[0], "restart-more")
	for _, addr := range more.Addrs {
		if slices.Contains(a.Addrs, addr) {
			t.Errorf("%s was given twice", addr)
		}
	}
	c.AsksPod(t, asking, a)
	c.Remove(t, a, b, more)
	c.NothingLeft(t)
}
