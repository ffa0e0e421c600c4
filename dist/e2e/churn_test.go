package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

const (
	mostChurnPods   = 500 // on one node
	leastChurnPods  = 50
	churnBudget     = time.Minute // see churnPods
	churnAtOnce     = 16          // ADDs and DELs
	churnProbed     = 10          // one in so many: the 1,024 neighbours that the kernel keeps for all namespaces together are too few for all
	restartsAtLeast = 2           // in each phase: one by each signal
)

// churn is a container runtime that adds and deletes many pods at once.
type churn struct {
	*testing.T
	lab  *lab.Lab
	node *lab.Node

	mu     sync.Mutex
	pods   []*lab.Pod            // by number; nil: not added
	holder map[netip.Addr]string // who has an address, from the result of ADD to the start of DEL
}

// TestChurn adds up to 500 pods to a node and deletes them, 16 at a time, while its daemon is restarted all the time, by SIGTERM and
// by SIGKILL: no address is given twice, pods reach the other node, and in the end nothing is left of any.
func TestChurn(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:], Config: `{"Network":"10.5.0.0/16","SubnetLen":22,` +
		`"EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}`})
	ctx := testctx.New(t)
	far, err := l.AddPod(ctx, l.Nodes()[1], "far")
	if err != nil {
		t.Fatal(err)
	}
	c := &churn{T: t, lab: l, node: l.Nodes()[0], pods: make([]*lab.Pod, churnAtOnce), holder: map[netip.Addr]string{}}
	file, err := c.node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	add, del := func(i int) error { return c.add(ctx, i) }, func(i int) error { return c.del(ctx, i) }
	pods := c.churnPods(add, del)
	if t.Failed() {
		return
	}

	again := func(i int) error { return errors.Join(del(i), add(i)) } // others take what it gave back
	c.while(ctx, "ADD", func(i int) error {
		if err := add(i); err != nil || i%4 != 0 {
			return err
		}
		return again(i)
	}, again)
	if len(c.holder) != pods*len(families) {
		t.Errorf("%d addresses are in use, want %d", len(c.holder), pods*len(families))
	}
	for a, name := range c.holder {
		if own := file.Subnets[subnet.FamilyOf(a)].Masked(); !own.Contains(a) {
			t.Errorf("%s has %s, want an address of %s", name, a, own)
		}
	}
	c.wantVeths(pods)
	if t.Failed() {
		return // there may be no pod of some number
	}
	c.each(func(i int) error { return l.CheckPod(ctx, c.pods[i]) })
	for i := 0; i < pods; i += churnProbed {
		for _, f := range families {
			// Once more if need be: while the table of neighbours is full, the kernel drops what it has to resolve an address for.
			waitFor(ctx, t, c.pods[i].Name(), func() error { return l.ProbeFamily(ctx, f, c.pods[i].Endpoint, far.Endpoint).Err })
		}
	}
	c.while(ctx, "DEL", del, func(i int) error { return errors.Join(add(i), del(i)) })
	c.wantVeths(0)
	c.wantNoFiles()
}

// churnPods chooses how many pods there are to be, and makes room for them: as many as the machine is likely to add, check, probe and
// delete in churnBudget, by what the first few take. The number decides how much is tested, never whether the test passes.
func (c *churn) churnPods(add, del func(i int) error) int {
	begin := time.Now()
	c.each(add)
	c.each(del)
	took := time.Since(begin) / churnAtOnce
	const whole = 3 // one in four is added and deleted twice, each is checked, and the daemon's restarts take CPU time
	pods := max(leastChurnPods, min(mostChurnPods, int(churnBudget/(whole*took))))
	c.Logf("ADD and DEL of a pod take %v with %d at a time: %d pods", took.Round(time.Millisecond), churnAtOnce, pods)
	c.pods = make([]*lab.Pod, pods)
	return pods
}

// while does something with every pod, and meanwhile restarts the daemon again and again. When all is done and the daemon has not
// been restarted often enough, again goes on with one pod.
func (c *churn) while(ctx context.Context, what string, do, again func(i int) error) {
	c.Helper()
	done := make(chan struct{})
	begin := time.Now()
	var restarted atomic.Int32
	go func() {
		defer close(done)
		c.each(do)
		for restarted.Load() < restartsAtLeast && !c.Failed() {
			if err := again(0); err != nil {
				c.Errorf("pod 0, again: %v", err)
			}
		}
	}()
	for running := true; running; restarted.Add(1) {
		if restarted.Load()%2 == 0 {
			if err := c.node.Stop(ctx); err != nil {
				c.Error(err)
			}
		} else {
			c.node.Kill()
		}
		if err := c.node.Start(); err != nil {
			c.Error(err)
		}
		if err := c.node.WaitReady(ctx); err != nil {
			c.Error(err)
		}
		select {
		case <-done:
			running = false
		default:
		}
	}
	c.Logf("%s: %d pods, %d at a time, in %v; the daemon was restarted %d times meanwhile", what, len(c.pods), churnAtOnce,
		time.Since(begin).Round(time.Millisecond), restarted.Load()-1) // the last restart may have been too late
}

// each does something with every pod, so many at once. It goes on after an error.
func (c *churn) each(do func(i int) error) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range churnAtOnce {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					c.Errorf("pod %d: %v", i, err)
				}
			}
		})
	}
	for i := range c.pods {
		next <- i
	}
	close(next)
	workers.Wait()
}

func (c *churn) add(ctx context.Context, i int) error {
	p, err := c.lab.AddPod(ctx, c.node, fmt.Sprintf("churn%d", i))
	if err != nil && strings.Contains(err.Error(), "already exists") {
		// bridge says that once in thousands of times, if the kernel does not take the name that it chose at random for the node's end
		// of a pair. A runtime tries again.
		c.Logf("pod %d is added again: %v", i, err)
		p, err = c.lab.AddPod(ctx, c.node, fmt.Sprintf("churn%d-again", i))
	}
	if err != nil {
		return err
	}
	if p.Stderr != "" {
		err = fmt.Errorf("on stderr: %s", p.Stderr)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[i] = p
	for _, f := range c.lab.Families() {
		a := p.Addr(f)
		if other, taken := c.holder[a]; taken || !a.IsValid() {
			err = errors.Join(err, fmt.Errorf("its %s address is %s, which %q has", f, a, other))
		}
		c.holder[a] = p.Name()
	}
	return err
}

func (c *churn) del(ctx context.Context, i int) error {
	c.mu.Lock()
	p := c.pods[i]
	if p != nil {
		for _, f := range c.lab.Families() {
			delete(c.holder, p.Addr(f)) // before DEL: somebody else may have it before that returns
		}
	}
	c.mu.Unlock()
	if p == nil {
		return errors.New("there is no such pod")
	}
	return c.lab.DelPod(ctx, p)
}

// wantVeths fails the test unless the node has so many interfaces of pods.
func (c *churn) wantVeths(want int) {
	c.Helper()
	var names []string
	err := c.node.Do(func() error {
		links, err := netlink.LinkList()
		for _, link := range links {
			if link.Type() == "veth" && strings.HasPrefix(link.Attrs().Name, "veth") { // the uplink is one too
				names = append(names, link.Attrs().Name)
			}
		}
		return err
	})
	if err != nil || len(names) != want {
		c.Errorf("the node has %d interfaces of pods, want %d; %v: %v", len(names), want, err, names)
	}
}

// wantNoFiles fails the test if an address is still handed out, or something is kept of a pod.
func (c *churn) wantNoFiles() {
	c.Helper()
	err := c.node.Do(func() error {
		for _, dir := range []string{"/var/lib/cni/networks/cbr0", "/var/lib/cni/flannel", "/var/lib/cni/results", "/run/netns"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.Name() != "lock" && !strings.HasPrefix(e.Name(), "last_reserved_ip") { // host-local's own
					c.Errorf("%s is left in %s", e.Name(), dir)
				}
			}
		}
		return nil
	})
	if err != nil {
		c.Error(err)
	}
}
