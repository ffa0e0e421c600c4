package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/network/userspace/program"
	"github.com/selvage-net/selvage/subnet"
)

// serveVariable makes the test binary a program that is not the daemon's: the device that it is to serve.
const serveVariable = "SERVE_WIREGUARD"

func TestMain(m *testing.M) {
	if name := os.Getenv(serveVariable); name != "" {
		if err := program.Run(context.Background(), []string{name}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(sandbox.Run(m.Run))
}

// kernelVariable, set to "kernel", says that the nodes' kernel has WireGuard, which they use then.
const kernelVariable = "WIREGUARD"

func usesKernel() bool { return os.Getenv(kernelVariable) == "kernel" }

const psk = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="

// cluster is two nodes with a pod on each, whose devices are served in user space, or by the kernel's WireGuard.
type cluster struct {
	*lab.Lab
	ctx      context.Context
	families []subnet.Family
	dir      string
	pods     []*lab.Pod
	programs []*lab.Program // see openForeign
}

// newCluster makes a cluster with a network config, and waits until it is ready.
func newCluster(t *testing.T, families []subnet.Family, backend string) *cluster {
	t.Helper()
	c := open(t, lab.Options{Families: families})
	c.begin(t, backend)
	return c
}

// open starts the daemons, which wait for the network config. They may serve devices in user space.
func open(t *testing.T, o lab.Options) *cluster {
	t.Helper()
	o.DaemonArgs = append(o.DaemonArgs, "--wireguard-userspace")
	return openForeign(t, o)
}

// openForeign starts daemons without that option, and programs that are not theirs for devices of all nodes, in the
// order of the nodes, and of the devices of each.
func openForeign(t *testing.T, o lab.Options, devices ...string) *cluster {
	t.Helper()
	ctx := testctx.New(t)
	if o.Families == nil {
		o.Families = families(subnet.IPv4) // what is sent below goes through these
	}
	o.Nodes, o.Config, o.Bin, o.Patience = 2, "-", "../../bin", lab.TestPatience
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Lab: l, ctx: ctx, families: o.Families, dir: t.TempDir()}
	t.Cleanup(c.end)
	for _, n := range l.Nodes() {
		for _, d := range devices {
			if usesKernel() {
				continue // the daemon makes it
			}
			c.programs = append(c.programs, c.serve(t, n, d))
		}
	}
	return c
}

// end ends the processes that serve devices: they outlive the daemons.
func (c *cluster) end() {
	for _, n := range c.Nodes() {
		n.Kill()
		_ = n.Do(func() error {
			for _, device := range []string{"flannel-wg", "flannel-wg-v6", "flannel-wg-2", "flannel-wg-v6-2"} {
				_ = userspace.End(device)
			}
			return nil
		})
	}
}

// configureNetwork writes the network config, with a Backend object.
func (c *cluster) configureNetwork(t *testing.T, backend string) {
	t.Helper()
	if err := c.Store().PutConfig(c.ctx, lab.NetworkConfig(c.families, backend, lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
}

// begin writes the network config, and adds the pods once the nodes are ready.
func (c *cluster) begin(t *testing.T, backend string) {
	t.Helper()
	c.configureNetwork(t, backend)
	if err := c.WaitReady(c.ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes() {
		p, err := c.AddPod(c.ctx, n, "")
		if err != nil {
			t.Fatal(err)
		}
		c.pods = append(c.pods, p)
	}
	if !usesKernel() {
		// When both ends begin a handshake at the same time, wireguard-go can lose what is sent first, which the
		// kernel does not: see Documentation/backends.md.
		c.recover(t)
	}
}

// serve starts the program for a device of a node, and waits until it is configurable.
func (c *cluster) serve(t *testing.T, n *lab.Node, device string) *lab.Program {
	t.Helper()
	log := filepath.Join(c.dir, n.Name()+"-"+device+".log")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.StartProgram(n.Do, log, []string{exe}, serveVariable+"="+device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	testctx.Eventually(t, func() string {
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.device(n, device); err != nil {
			return err.Error()
		}
		return ""
	})
	return p
}

// device reads a device of a node.
func (c *cluster) device(n *lab.Node, name string) (d *wgtypes.Device, err error) {
	err = n.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		d, err = client.Device(name)
		return err
	})
	return d, err
}

// configure changes a device of a node as another process would.
func (c *cluster) configure(t *testing.T, n *lab.Node, name string, config wgtypes.Config) {
	t.Helper()
	err := n.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		return client.ConfigureDevice(name, config)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// probe fails the test unless all pods reach each other, and the other nodes, in all families.
func (c *cluster) probe(t *testing.T) {
	t.Helper()
	a, b := c.pods[0].Endpoint, c.pods[1].Endpoint
	for _, ends := range [][2]*lab.Endpoint{{a, b}, {b, a}, {c.Nodes()[0].Endpoint, b}} {
		for _, r := range c.ProbeShared(c.ctx, ends[0], ends[1]) {
			if r.Err != nil {
				t.Errorf("%s to %s, %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
	}
}

// underlay captures what is sent on the uplink of the first node, until stop.
func (c *cluster) underlay(t *testing.T) (stop func() (packets [][]byte)) {
	t.Helper()
	link, err := net.InterfaceByName(c.Nodes()[0].Name())
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all<<8&0xff00|all>>8))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8&0xff00 | all>>8, Ifindex: link.Index})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000})
	}
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	done := make(chan [][]byte)
	go func() {
		defer unix.Close(fd)
		var packets [][]byte
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if err == nil {
				packets = append(packets, slices.Clone(buf[:n]))
			} else if ended.Load() {
				done <- packets
				return
			}
		}
	}()
	return func() [][]byte { ended.Store(true); return <-done }
}
