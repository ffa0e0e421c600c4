package engines

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// bin is where make build and make tools put the programs.
const bin = "../../bin"

// port is what the containers serve, and outsidePort what the outside does, beside the lab's own server there.
const port, outsidePort = 7070, 7071

func TestMain(m *testing.M) { os.Exit(sandbox.Options{Outside: containerd.Cgroups}.Run(m.Run)) }

// cluster is two machines with an engine each, and the outside.
type cluster struct {
	ctx      context.Context
	lab      *lab.Lab
	at       []*Machine
	families []subnet.Family
	program  string // the containers', on this machine
}

// newCluster boots the machines with the given units of the distribution, and starts none.
func newCluster(t *testing.T, o lab.Options, units ...string) (c *cluster, archive string) {
	t.Helper()
	ctx := testctx.New(t)
	c = &cluster{ctx: ctx}
	tmp := t.TempDir()
	var err error
	if c.program, archive, err = Image(tmp); err != nil {
		t.Fatal(err)
	}
	o.Nodes, o.Bin = 2, bin
	if c.lab, err = lab.New(ctx, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	c.families = c.lab.Families()
	for _, node := range c.lab.Nodes() {
		m, err := Boot(ctx, c.lab, node, bin, filepath.Join(tmp, node.Name()+".systemd.log"), units...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(m.Printed())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		c.at = append(c.at, m)
	}
	outside, err := lab.StartProgram(c.lab.Outside().Do, filepath.Join(tmp, "outside.log"), []string{c.program, "serve", fmt.Sprintf(":%d", outsidePort)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Kill)
	return c, archive
}

// run runs a command on a machine, and ends the test if it fails.
func (c *cluster) run(t *testing.T, m *Machine, argv ...string) string {
	t.Helper()
	out, err := m.Inside(c.ctx, argv...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return out
}

// eventually waits until check finds nothing wrong.
func (c *cluster) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-c.ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// subnet is what a machine's subnet file says.
func (c *cluster) subnet(t *testing.T, m *Machine) subnetfile.File {
	t.Helper()
	file, err := m.Node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// container is one that runs.
type container struct {
	at    *Machine
	cli   string // the engine's command
	name  string
	addrs [2]netip.Addr // by family
}

// ask has the container ask a server, by UDP and TCP, which address it sees.
func (c *cluster) ask(from *container, to netip.AddrPort) (netip.Addr, error) {
	out, err := from.at.Inside(c.ctx, from.cli, "exec", from.name, program, "ask", to.String())
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(out)
}

// asks wants an answer, and the server to see that address.
func (c *cluster) asks(t *testing.T, from *container, to netip.AddrPort, want netip.Addr) {
	t.Helper()
	c.eventually(t, fmt.Sprintf("%s asks %s", from.name, to), func() error { // a server starts after its container has
		seen, err := c.ask(from, to)
		if err == nil && seen != want {
			t.Fatalf("%s saw %s, want %s", to, seen, want)
		}
		return err
	})
}

// reach has containers ask each other by their own addresses, in each family.
func (c *cluster) reach(t *testing.T, containers ...*container) {
	t.Helper()
	for _, from := range containers {
		for _, to := range containers {
			for _, f := range c.families {
				if from != to {
					c.asks(t, from, netip.AddrPortFrom(to.addrs[f], port), from.addrs[f])
				}
			}
		}
	}
}

// outward has a container ask the outside, which is to see its machine's address.
func (c *cluster) outward(t *testing.T, from *container) {
	t.Helper()
	for _, f := range c.families {
		c.asks(t, from, netip.AddrPortFrom(c.lab.Outside().Addr(f), outsidePort), from.at.Node.Addr(f))
	}
}

// askFrom asks from a node or the outside.
func (c *cluster) askFrom(e *lab.Endpoint, to netip.AddrPort) (netip.Addr, error) {
	out, err := e.Output(c.ctx, c.program, "ask", to.String())
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(string(out))
}
