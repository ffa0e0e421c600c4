package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// bin is the repository's, as the virtual machine has it.
const bin = "../../../bin"

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

func families(f ...subnet.Family) []subnet.Family { return f }

// cluster is a lab with a pod on each node.
type cluster struct {
	*lab.Lab
	t    *testing.T
	ctx  context.Context
	pods []*lab.Pod
}

// newCluster makes a lab whose daemons wait for the network config, until begin.
func newCluster(t *testing.T, o lab.Options) *cluster {
	t.Helper()
	ctx := testctx.New(t)
	o.Bin, o.Config, o.Patience = bin, "-", lab.TestPatience
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes() {
				log, err := os.ReadFile(n.LogPath())
				t.Logf("%s: %v\n%s", n.Name(), err, log)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// configure writes the network config with a Backend object.
func (c *cluster) configure(f []subnet.Family, backend string) {
	c.t.Helper()
	c.must(c.Store().PutConfig(c.ctx, lab.NetworkConfig(f, backend, lab.NodesChoose)))
}

// begin configures the network, waits until the nodes are ready, and adds the pods.
func (c *cluster) begin(f []subnet.Family, backend string) {
	c.t.Helper()
	c.configure(f, backend)
	c.must(c.WaitReady(c.ctx))
	c.addPods()
}

func (c *cluster) addPods() {
	c.t.Helper()
	for _, n := range c.Nodes() {
		p, err := c.AddPod(c.ctx, n, "")
		c.must(err)
		c.pods = append(c.pods, p)
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// probe fails the test unless all pods reach each other in all families.
func (c *cluster) probe() {
	c.t.Helper()
	var ends []*lab.Endpoint
	for _, p := range c.pods {
		ends = append(ends, p.Endpoint)
	}
	for _, f := range c.Families() {
		for _, r := range slices.Concat(c.MatrixFamily(c.ctx, f, ends)...) {
			if r.Err != nil {
				c.t.Errorf("%s to %s, %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
	}
}

// healthy waits until nodes have no problem, and so many peers.
func (c *cluster) healthy(peers int, nodes ...*lab.Node) {
	c.t.Helper()
	for _, n := range nodes {
		testctx.Eventually(c.t, func() string {
			s, err := n.Status(c.ctx)
			if err != nil || s.State != status.Ready || len(s.Problems) > 0 || s.Peers.Programmed != peers {
				return fmt.Sprintf("%s: %s, peers %+v, problems %+v, %v", n.Name(), s.State, s.Peers, s.Problems, err)
			}
			return ""
		})
	}
}

// on calls f on a node.
func (c *cluster) on(n *lab.Node, f func() error) {
	c.t.Helper()
	if err := n.Do(f); err != nil {
		c.t.Fatalf("%s: %v", n.Name(), err)
	}
}

// run runs a program on a node, or in a pod.
func (c *cluster) run(at *lab.Endpoint, line string) {
	c.t.Helper()
	if out, err := at.Output(c.ctx, strings.Fields(line)...); err != nil {
		c.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// kind returns the kind of a node's device.
func (c *cluster) kind(n *lab.Node, device string) (kind string) {
	c.t.Helper()
	c.on(n, func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			kind = link.Type()
		}
		return err
	})
	return kind
}

// slowly waits like [testctx.Eventually] for what takes many seconds. It looks less often, since the virtual machine has
// nothing to do in between.
func (c *cluster) slowly(check func() string) {
	c.t.Helper()
	testctx.Eventually(c.t, func() string {
		missing := check()
		if missing != "" {
			time.Sleep(500 * time.Millisecond)
		}
		return missing
	})
}

// stream sends datagrams from one pod to another, every 5 ms in each family, until stop, which returns how many were sent
// and lost in all families, and the longest gap.
func (c *cluster) stream(from, to *lab.Pod) (stop func() lab.StreamReport) {
	c.t.Helper()
	return c.streamEvery(from, to, streamEvery)
}

func (c *cluster) streamEvery(from, to *lab.Pod, every time.Duration) (stop func() lab.StreamReport) {
	ctx, cancel := context.WithCancel(c.ctx)
	type result struct {
		reports []lab.StreamReport
		err     error
	}
	done := make(chan result, 1)
	go func() {
		r, err := c.StreamShared(ctx, from.Endpoint, to.Endpoint, every)
		done <- result{r, err}
	}()
	return func() (sum lab.StreamReport) {
		c.t.Helper()
		cancel()
		r := <-done
		c.must(r.err)
		for _, one := range r.reports {
			sum.Sent, sum.Lost, sum.Gap = sum.Sent+one.Sent, sum.Lost+one.Lost, max(sum.Gap, one.Gap)
		}
		if sum.Sent == 0 {
			c.must(errors.New("the stream has sent nothing"))
		}
		return sum
	}
}
