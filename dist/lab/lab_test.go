package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// newLab makes a lab that is closed at the end of the test. Each wait in it is bounded: a test that hangs says nothing.
func newLab(t *testing.T, o Options) (context.Context, *Lab) {
	t.Helper()
	ctx := testctx.New(t)
	o.Bin, o.Patience = binDir, TestPatience
	l, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, l
}

func addPod(ctx context.Context, t *testing.T, l *Lab, n *Node) *Pod {
	t.Helper()
	p, err := l.AddPod(ctx, n, "")
	if err != nil {
		t.Fatal(err)
	}
	if p.Stderr != "" {
		t.Errorf("the plugins printed on stderr: %s", p.Stderr)
	}
	return p
}

// longEnough is [Lab.LongEnough] where the probe has to be answered.
func longEnough(ctx context.Context, t *testing.T, l *Lab, from, to *Endpoint) time.Duration {
	t.Helper()
	wait, err := l.LongEnough(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

func expectOK(t *testing.T, results ...Result) {
	t.Helper()
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s -> %s: %v", r.From, r.To, r.Err)
		}
	}
}

func TestLab(t *testing.T) {
	ctx, l := newLab(t, Options{})
	leases, err := l.Etcd().Leases(ctx)
	if err != nil || len(leases) != 3 {
		t.Fatalf("leases %v, %v, want three", leases, err)
	}
	for i, n := range l.Nodes() {
		file, err := n.Subnet()
		if err != nil {
			t.Fatal(err)
		}
		own := leases[i].Endpoints[subnet.IPv4]
		if file.Subnets[subnet.IPv4] != subnet.Gateway(own.Subnet) || own.PublicIP != n.Addr(subnet.IPv4) {
			t.Errorf("%s: subnet file %+v, lease %+v, address %s", n.Name(), file, own, n.Addr(subnet.IPv4))
		}
		for range 2 {
			p := addPod(ctx, t, l, n)
			if !own.Subnet.Contains(p.Addr(subnet.IPv4)) {
				t.Errorf("%s has %s, not of %s", p.Name(), p.Addr(subnet.IPv4), own.Subnet)
			}
		}
	}

	var pods []*Endpoint
	for _, p := range l.Pods() {
		pods = append(pods, p.Endpoint)
	}
	expectOK(t, slices.Concat(l.Matrix(ctx, pods)...)...)
	for _, n := range l.Nodes() {
		for _, p := range pods {
			expectOK(t, l.Probe(ctx, n.Endpoint, p))
		}
	}
	for _, p := range l.Pods() {
		r := l.Probe(ctx, p.Endpoint, l.Outside())
		expectOK(t, r)
		if want := p.Node.Addr(subnet.IPv4); r.Source != want {
			t.Errorf("%s was seen outside as %s, want %s", p.Name(), r.Source, want)
		}
	}
	short, cancel := context.WithTimeout(ctx, longEnough(ctx, t, l, pods[0], l.Outside()))
	defer cancel()
	if r := l.Probe(short, l.Outside(), pods[0]); r.Err == nil {
		t.Error("the outside reaches a pod, and should not know the way")
	}

	entries, err := l.Explain(ctx, l.Nodes()[0])
	count := map[string]int{}
	for _, e := range entries {
		count[e.Kind]++
	}
	if err != nil || count["device"] != 1 || count["route"] != 3 || count["neigh"] != 2 || count["fdb"] != 2 || count["rules"] == 0 {
		t.Errorf("entries %+v, %v", entries, err)
	}
}

func TestPods(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 1})
	node := l.Nodes()[0]
	first := addPod(ctx, t, l, node)
	if _, err := l.AddPod(ctx, node, "pod1"); err == nil {
		t.Error("a second pod1 was added")
	}
	second := addPod(ctx, t, l, node)
	if got := []string{first.Name(), second.Name()}; !slices.Equal(got, []string{"node1/pod1", "node1/pod2"}) {
		t.Errorf("pods %q", got)
	}
	out, err := first.Output(ctx, "hostname")
	if string(out) != "node1\n" || err != nil {
		t.Errorf("hostname in a pod: %q, %v", out, err)
	}
	var exit *exec.ExitError
	if _, err := node.Output(ctx, "sh", "-c", "echo why >&2; exit 3"); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "why") {
		t.Errorf("got %v, want exit status 3 and the reason", err)
	}
	if b, err := first.ReadFile("/run/flannel/subnet.env"); err != nil || !bytes.Contains(b, []byte("FLANNEL_SUBNET=")) {
		t.Errorf("subnet file %q, %v", b, err)
	}
	if err := l.DelPod(ctx, first); err != nil {
		t.Error(err)
	}
	if again := addPod(ctx, t, l, node); again.Name() != "node1/pod1" || len(l.Pods()) != 2 {
		t.Errorf("pods %v, the new one %s", l.Pods(), again.Name())
	}
}

// TestFaults breaks a node whose daemon cannot repair it, and lets the daemon do so afterwards.
func TestFaults(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 2})
	node, peer := l.Nodes()[0], l.Nodes()[1]
	from, to := addPod(ctx, t, l, node), addPod(ctx, t, l, peer)
	for _, name := range []string{"route-del", "fdb-del", "neigh-del", "device-flap", "device-down", "device-del"} {
		t.Run(name, func(t *testing.T) {
			node.Kill()
			wait := longEnough(ctx, t, l, from.Endpoint, to.Endpoint)
			f, err := FindFault(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Inject(ctx, l, node, l.PeersOf(node)); err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			if r := l.Probe(short, from.Endpoint, to.Endpoint); r.Err == nil {
				t.Error("the pod is still reached")
			}
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			if err := l.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			if err := poll(ctx, nil, func() error { return l.Probe(ctx, from.Endpoint, to.Endpoint).Err }); err != nil {
				t.Errorf("after: %v", err)
			}
		})
	}
	t.Run("rules-flush", func(t *testing.T) {
		node.Kill()
		if err := flushRules(ctx, l, node, nil); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, longEnough(ctx, t, l, from.Endpoint, to.Endpoint))
		defer cancel()
		if r := l.Probe(short, from.Endpoint, l.Outside()); r.Err == nil {
			t.Error("what leaves the overlay is still masqueraded")
		}
	})
	t.Run("twice", func(t *testing.T) {
		if err := errors.Join(node.DeviceDelete(), node.DeviceDelete()); !errors.Is(err, errNothing) {
			t.Errorf("got %v, want %v", err, errNothing)
		}
	})
	if _, err := FindFault("no-such"); err == nil {
		t.Error("found a fault that there is not")
	}
}

// TestSegments has nodes in two networks, and three etcd members, which are all killed and started again.
func TestSegments(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 2, Segments: 2, EtcdMembers: 3, MTU: 1400})
	a, b := addPod(ctx, t, l, l.Nodes()[0]), addPod(ctx, t, l, l.Nodes()[1])
	expectOK(t, l.Probe(ctx, a.Endpoint, b.Endpoint), l.Probe(ctx, b.Endpoint, a.Endpoint))
	if got, want := l.Nodes()[1].Addr(subnet.IPv4), netip.MustParseAddr("172.31.1.11"); got != want {
		t.Errorf("node2 has %s, want %s", got, want)
	}
	expectOK(t, l.ProbeFamily(ctx, subnet.IPv6, l.Nodes()[0].Endpoint, l.Nodes()[1].Endpoint),
		l.ProbeFamily(ctx, subnet.IPv6, l.Nodes()[0].Endpoint, l.Outside()))
	l.Etcd().Kill()
	if err := l.Etcd().Start(ctx); err != nil {
		t.Fatal(err)
	}
	if leases, err := l.Etcd().Leases(ctx); err != nil || len(leases) != 2 {
		t.Errorf("leases %v, %v, want two", leases, err)
	}
}

// TestDaemonFails wants the daemon's last words in the error, and nothing left that would be in the way of the next lab.
func TestDaemonFails(t *testing.T) {
	for range 2 {
		l, err := New(t.Context(), Options{Nodes: 1, Bin: binDir, DaemonArgs: []string{"--no-such-flag"}})
		if err == nil {
			l.Close()
			t.Fatal("a lab came up with daemons that cannot start")
		}
		if !strings.Contains(err.Error(), "selvaged has ended") || !strings.Contains(err.Error(), "no-such-flag") {
			t.Errorf("the error does not say why: %v", err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Nodes: 201}, {Nodes: -1}, {Segments: 10}, {EtcdMembers: 10}, {Bin: t.TempDir()}, {IPTables: "no-such"},
		{Families: []subnet.Family{subnet.IPv6, subnet.IPv6}}, {Families: []subnet.Family{2}}, {MTU: 1279},
	} {
		if l, err := New(t.Context(), o); err == nil {
			l.Close()
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestStream(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 2})
	a, b := l.Nodes()[0], l.Nodes()[1]
	run := func(during func() error) StreamReport {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		reports := make(chan StreamReport)
		go func() {
			r, err := l.Stream(ctx, a.Endpoint, b.Endpoint, time.Millisecond)
			if err != nil {
				t.Error(err)
			}
			reports <- r
		}()
		if err := during(); err != nil {
			t.Error(err)
		}
		cancel()
		return <-reports
	}
	grown := func(counter string) error {
		before, err := in(a.do, counters)
		if err != nil {
			return err
		}
		return poll(ctx, nil, func() error {
			now, err := in(a.do, counters)
			if by := now[counter] - before[counter]; err == nil && by < 10 {
				err = fmt.Errorf("%s has grown by %d, want 10", counter, by)
			}
			return err
		})
	}
	if r := run(func() error { return grown("UdpOutDatagrams") }); r.Sent < 10 || r.Lost != 0 || r.Gap != 0 {
		t.Errorf("a quiet network: %s", r)
	}
	down := func() error {
		return errors.Join(grown("UdpOutDatagrams"), a.Do(func() error {
			link, err := netlink.LinkByName(uplink)
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		}), grown("IpOutNoRoutes"))
	}
	l.options.Patience = 5 * time.Second // no answer comes any more
	if r := run(down); r.Lost < 10 || r.Lost == r.Sent || r.Gap == 0 {
		t.Errorf("an interface was set down: %s", r)
	}
}

func TestStreamReport(t *testing.T) {
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, time.UnixMilli(int64(m)))
		}
		return times
	}
	for _, test := range []struct {
		sent     []time.Time
		answered []uint64
		want     StreamReport
	}{
		{at(0), nil, StreamReport{}},
		{at(0, 2, 4), []uint64{0, 1}, StreamReport{Sent: 2}},
		{at(0, 2, 4, 6, 8, 10), []uint64{0, 4, 4, 99}, StreamReport{Sent: 5, Lost: 3, Gap: 6 * time.Millisecond}},
		{at(0, 2, 4, 6, 8, 10), []uint64{1, 3}, StreamReport{Sent: 5, Lost: 3, Gap: 2 * time.Millisecond}},
		{at(0, 2, 4), nil, StreamReport{Sent: 2, Lost: 2, Gap: 4 * time.Millisecond}},
	} {
		if got := report(test.sent, test.answered); got != test.want {
			t.Errorf("%v, %v: got %v, want %v", test.sent, test.answered, got, test.want)
		}
	}
}
