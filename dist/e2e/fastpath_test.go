package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestFastPath: packets between pods of two nodes are fast in both families, stay so over restarts of the daemon, and
// become so again after everything that the fast path rests on was broken; no packet is lost meanwhile. Turned off,
// nothing is left.
func TestFastPath(t *testing.T) {
	ctx := testctx.New(t)
	l, ends, ok := fastLab(ctx, t, subnet.IPv4, subnet.IPv6)
	a, b := l.Nodes()[0], l.Nodes()[1]
	end := stream(ctx, t, l, ends[0], ends[1])
	if !ok {
		isSlow(ctx, t, a, status.NotPermitted)
		end()
		fastMode(ctx, t, a, "--fast-path=auto")
		isFallback(ctx, t, a)
		probeAll(ctx, t, l, ends)
		return
	}
	goesFast(ctx, t, "at first", a, b)
	if s, err := a.Status(ctx); err != nil || s.Repairs.Total > 0 {
		t.Errorf("after the start: repairs %+v, %v", s.Repairs, err)
	}
	for _, tt := range []struct {
		kind, what string
		harm       func() error
	}{
		{"program", "a program is detached", func() error { return detach("from_wire", "eth0") }},
		{"program", "a program of a VXLAN device is detached", func() error { return detach("from_device", "flannel.1") }},
		{"program", "one of the other is", func() error { return detach("from_device", "flannel-v6.1") }},
		{"program", "a pin is removed", func() error { return unpin("learn_sent", "eth0") }},
		{"fast-peer", "the peers are removed", forgetPeers},
		{"sysctl", "the setting of conntrack is changed", func() error {
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", []byte("0"), 0)
		}},
	} {
		repaired(ctx, t, a, tt.kind, tt.what, tt.harm)
		goesFast(ctx, t, tt.what, a, b)
	}

	for _, stop := range []func(*lab.Node) error{
		func(n *lab.Node) error { n.Kill(); return nil }, func(n *lab.Node) error { return n.Stop(ctx) },
	} {
		var attached, kept map[string]link.ID
		before, err := fastStatus(ctx, a)
		err = errors.Join(err, a.Do(func() (err error) { attached, err = attachments(); return err }))
		if err := errors.Join(err, stop(a)); err != nil {
			t.Fatal(err)
		}
		goesFast(ctx, t, "without a daemon at the other node", b)
		if err := errors.Join(a.Start(), a.WaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
		goesFast(ctx, t, "after a start", a, b)
		after, err := fastStatus(ctx, a)
		if was, _ := before.Fast(); err != nil || !after.Pinned {
			t.Errorf("after a start: %+v, %v; before: %d sent", after, err, was)
		}
		err = a.Do(func() (err error) { kept, err = attachments(); return err })
		if err != nil || !maps.Equal(kept, attached) {
			t.Errorf("after a start, %v are attached (%v); before, %v were", kept, err, attached)
		}
	}
	end()

	if err := a.DeviceDelete(); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the VXLAN devices are made again", func() error {
		var errs []error
		for _, r := range l.ProbeShared(ctx, ends[0], ends[1]) {
			errs = append(errs, r.Err)
		}
		return errors.Join(errs...)
	})
	end = stream(ctx, t, l, ends[0], ends[1])
	goesFast(ctx, t, "the VXLAN device is made again", a, b)

	fastMode(ctx, t, a, "--fast-path=off")
	waitFor(ctx, t, "off, nothing is left", func() error { return a.Do(fastPathLeft) })
	end()

	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if b.Do(fastPathLeft) == nil {
		t.Error("nothing is left after the daemon has ended, and it has to work on")
	}
	if out, err := selvaged(ctx, t, b, "cleanup"); err != nil || !strings.Contains(out, "removed fast path") {
		t.Errorf("cleanup: %s, %v", out, err)
	}
	if err := b.Do(fastPathLeft); err != nil {
		t.Errorf("after the cleanup: %v", err)
	}
}

// TestFastPathIPv6: without IPv4 on the underlay, packets are fast, too.
func TestFastPathIPv6(t *testing.T) {
	ctx := testctx.New(t)
	l, ends, ok := fastLab(ctx, t, subnet.IPv6)
	if !ok {
		isSlow(ctx, t, l.Nodes()[0], status.NotPermitted)
		return
	}
	stream(ctx, t, l, ends[0], ends[1])
	goesFast(ctx, t, "at first", l.Nodes()...)
}

// TestFastPathFlushes: after a change of what packets are decided by, what was learned is void.
func TestFastPathFlushes(t *testing.T) {
	ctx := testctx.New(t)
	l, ends, ok := fastLab(ctx, t)
	if !ok {
		isSlow(ctx, t, l.Nodes()[0], status.NotPermitted)
		return
	}
	a, b := l.Nodes()[0], l.Nodes()[1]
	stream(ctx, t, l, ends[0], ends[1])
	goesFast(ctx, t, "at first", a, b)
	conn := func(f func(*nftables.Conn)) error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		f(c)
		return c.Flush()
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "other"}
	for _, tt := range []struct {
		what string
		do   func() error
	}{
		{"another program's rules", func() error { return conn(func(c *nftables.Conn) { c.AddTable(table) }) }},
		{"these are removed", func() error { return conn(func(c *nftables.Conn) { c.DelTable(table) }) }},
		{"a route is added", func() error {
			index, err := indexOf("lo")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: netlink.NewIPNet([]byte{198, 18, 0, 1})})
		}},
		{"a repair", func() error {
			neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
			for _, x := range neighbours {
				if x.State&netlink.NUD_PERMANENT != 0 && len(x.HardwareAddr) > 0 {
					return netlink.NeighDel(&x)
				}
			}
			return errors.Join(err, errors.New("no permanent neighbour"))
		}},
	} {
		before, err := fastStatus(ctx, a)
		if err := errors.Join(err, a.Do(tt.do)); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		waitFor(ctx, t, tt.what, func() error {
			s, err := fastStatus(ctx, a)
			if err == nil && s.Flushes == before.Flushes {
				err = errors.New("not flushed")
			}
			return err
		})
		goesFast(ctx, t, tt.what, a, b)
	}
}

// TestFastPathFallsBack: where fast packets would pass by something that has to see them, packets are slow, and the
// daemon says so.
func TestFastPathFallsBack(t *testing.T) {
	ctx := testctx.New(t)
	l, ends, ok := fastLab(ctx, t)
	if !ok {
		isSlow(ctx, t, l.Nodes()[0], status.NotPermitted)
		return
	}
	a, b := l.Nodes()[0], l.Nodes()[1]
	running, end := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { // a device loses packets while it gets another queueing discipline
		if _, err := l.StreamShared(running, ends[0], ends[1], 2*time.Millisecond); err != nil {
			t.Error(err)
		}
	})
	defer sending.Wait()
	defer end()
	goesFast(ctx, t, "at first", a, b)
	waitFor(ctx, t, "the fast path of each pair of nodes", func() error {
		s, err := a.Status(ctx)
		for _, p := range s.Probes {
			for _, x := range p.Peers {
				if x.FastPath != status.FastPathInUse {
					err = errors.Join(err, fmt.Errorf("%s to %s: %q", p.Family, x.Key, x.FastPath))
				}
			}
		}
		if err == nil && len(s.Probes) == 0 {
			err = errors.New("no node is probed")
		}
		return err
	})

	var port string
	var shaper *netlink.GenericQdisc
	if err := a.Do(func() error {
		links, err := netlink.LinkList()
		for _, x := range links {
			if x.Type() == "veth" && x.Attrs().MasterIndex != 0 {
				port = x.Attrs().Name
				shaper = &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{
					LinkIndex: x.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
				}, QdiscType: "pfifo"}
				return netlink.QdiscAdd(shaper)
			}
		}
		return errors.Join(err, errors.New("no port of a pod"))
	}); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the traffic of a pod is shaped", func() error {
		s, err := fastStatus(ctx, a)
		if err == nil && (!s.InUse || len(s.Slow) != 1 || s.Slow[0].Port != port || s.Slow[0].Code != status.FastPathQueue) {
			err = fmt.Errorf("the state is %+v", s)
		}
		return err
	})
	if err := a.Do(func() error { return netlink.QdiscDel(shaper) }); err != nil {
		t.Fatal(err)
	}
	goesFast(ctx, t, "not shaped any more", a, b)

	table := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "other"}
	rules := func(f func(*nftables.Conn)) {
		t.Helper()
		if err := a.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			f(c)
			return c.Flush()
		}); err != nil {
			t.Fatal(err)
		}
	}
	rules(func(c *nftables.Conn) {
		c.AddChain(&nftables.Chain{
			Name: "egress", Table: c.AddTable(table), Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookEgress,
			Priority: nftables.ChainPriorityFilter, Device: "eth0",
		})
	})
	isSlow(ctx, t, a, status.FastPathChain)
	rules(func(c *nftables.Conn) { c.DelTable(table) })
	goesFast(ctx, t, "no chain any more", a, b)
}

// TestFastPathPolicies: what network policies allow is fast, and a connection that a changed policy denies ends at
// once, although it was fast.
func TestFastPathPolicies(t *testing.T) {
	p := policies{t, t.TempDir()}
	p.write("server", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---"+fromClient)
	p.write("pods", lab.PodYAML("server", "server", "node1", nil)+lab.PodYAML("client", "client", "node2", nil))
	l := start(t, lab.Options{
		Nodes: 2, Namespace: "default",
		DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + p.dir, "--fast-path=auto"},
	})
	ctx := testctx.New(t)
	var pods []*lab.Pod
	for i, name := range []string{"server", "client"} {
		pod, err := l.AddPod(ctx, l.Nodes()[i], name)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, pod)
	}
	server, client := pods[0], pods[1]
	p.write("pods", lab.PodYAML("server", "server", "node1", server.Endpoint)+lab.PodYAML("client", "client", "node2", client.Endpoint))
	waitFor(ctx, t, "it is allowed", func() error { return l.Probe(ctx, client.Endpoint, server.Endpoint).Err })
	if !fastpath.Permitted() {
		isFallback(ctx, t, server.Node)
		return
	}
	running, end := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := l.StreamShared(running, client.Endpoint, server.Endpoint, 2*time.Millisecond); err != nil {
			t.Error(err)
		}
	})
	defer sending.Wait()
	defer end()
	goesFast(ctx, t, "allowed", server.Node, client.Node)

	p.write("server", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---"+denyAll)
	last, err := fastStatus(ctx, server.Node)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "denied: nothing that arrives is fast", func() error {
		now, err := fastStatus(ctx, server.Node)
		if err != nil || slowPackets(now) < slowPackets(last)+100 {
			return errors.Join(err, fmt.Errorf("%+v", now))
		}
		_, before := last.Fast()
		_, after := now.Fast()
		if last = now; after > before {
			return fmt.Errorf("%d packets were fast", after-before)
		}
		return nil
	})
	wait := longEnough(ctx, t, l, server.Node.Endpoint, server.Node.Endpoint)
	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if l.Probe(short, client.Endpoint, server.Endpoint).Err == nil {
		t.Error("a new connection passes, which a policy denies")
	}

	p.write("server", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---"+fromClient)
	goesFast(ctx, t, "allowed again", server.Node, client.Node)
}
