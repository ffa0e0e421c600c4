package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

func TestMain(m *testing.M) {
	if code, done := Trace(); done {
		os.Exit(code)
	}
	os.Exit(sandbox.Run(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// newSuite makes a suite that is closed at the end of the test. What takes a minute in the command takes a second or two, and
// there are half the pods.
func newSuite(t *testing.T, o Options) *Suite {
	t.Helper()
	o.Bin, o.Pods, o.Stopped, o.Conflict = "../../bin", 1, 2*time.Second, time.Second
	o.Patience = 4 * time.Minute // less than the test may take, so that it says what is wrong
	s, err := New(testctx.New(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run does a fault and fails if anything is wrong after it. How long it took is not judged.
func run(t *testing.T, s *Suite, c Case) {
	t.Helper()
	c.Traffic = c.Fault.NoLoss || c.Fault.Class == Policies
	o, err := s.Run(testctx.New(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if o.Wrong != nil {
		t.Errorf("%s\nlog:\n%s", strings.Join(o.Wrong, "\n"), strings.Join(o.Log, "\n"))
	}
}

// runAll does each fault once to a node whose daemon runs, in all its families, and each of those named once to one whose daemon does
// not and is then started, in the last of its families alone. In the latter case it also shows that the fault breaks something that the
// verifier sees. A start reads all of the kernel's tables whatever was broken, so there is one fault for each kind of object and for each
// kind of difference; make chaos does all.
func runAll(t *testing.T, s *Suite, whileStopped ...string) {
	for i, f := range s.options.Faults() {
		if f.Class == OwnSide && (s.options.NFTables || !slices.Contains(ownSideTested(), f.Name)) {
			continue
		}
		if s.options.Policies && !slices.Contains(policiesTested(), f.Name) {
			continue
		}
		turns := s.Turns(f)
		cases := []Case{{Where: OneNode, Families: turns[0]}}
		if at := slices.Index(whileStopped, f.Name); at >= 0 {
			whileStopped = slices.Delete(whileStopped, at, at+1)
			cases = append(cases, Case{Where: Stopped, Families: turns[len(turns)-1]})
		}
		for _, c := range cases {
			c.Fault, c.Host = f, i
			t.Run(f.Name+"/"+c.place(), func(t *testing.T) { run(t, s, c) })
		}
	}
	if len(whileStopped) > 0 {
		t.Errorf("there is no fault of the name %q", whileStopped)
	}
}

// ownSideTested are those faults of the own side that are done here, one for each kind of object, in an overlay with iptables: it is the
// same code with every packet filter. make chaos does all.
func ownSideTested() []string {
	return []string{
		"own side: bridge deleted", "own side: port moved to another bridge", "own side: bridge's address flushed", "own side: connected route deleted",
		"own side: pod's default route removed in the pod", "own side: blackhole in the own subnet",
	}
}

// policiesTested are those faults of network policies that are done here, one for each table, each direction in which
// it can be wrong, and each end of the daemon. The tests of network/enforce have more, and make chaos all.
func policiesTested() []string {
	return []string{
		"policies: table deleted", "policies: a foreign accept in front", "policies: base chains' policy is drop",
		"policies: peers removed from their sets", "policies: a pod put among the peers", "policies: pods removed from the verdict maps",
		"policies: closed: another's table of that name", "policies: sources: ports removed", "policies: bridge-nf-call off",
		"policies: daemon killed, started again", "policies: daemon stopped, started again",
	}
}

func TestFaults(t *testing.T) {
	runAll(t, newSuite(t, Options{}),
		"route deleted", "another route put before ours", "FDB entry with another VTEP", "ARP entry made to age", "stale entries added", "stale address added",
		"route without its nexthop object", "nexthop made a group", "stale nexthop and route added",
		"device deleted", "device's MAC changed", "device's MTU changed", "device's address flushed", "device renamed", "device's local address changed",
		"device without IPv6 (disable_ipv6)", "own side: bridge deleted",
		"uplink gets another address, later its own", "uplink's MTU 1400, later 1500", "uplink deleted, then recreated",
		"our chains flushed", "our jump behind a DROP", "forwarding off on the device and the uplink",
		"table selvage-vtep: deleted, another of the name in its place", "table selvage-vtep: a rule deleted", "table selvage-vtep: an address put into the sets")
}

func TestManyLeases(t *testing.T) {
	s := newSuite(t, Options{Leases: 500})
	t.Run("at rest", func(t *testing.T) { testRest(t, s) })
	for _, f := range s.options.Faults() {
		t.Run(f.Name, func(t *testing.T) { run(t, s, Case{Fault: f, Where: OneNode, Families: s.Turns(f)[0]}) })
	}
}

// testRest: leases at rest cost nothing, no request to the kernel is made for them. Repairs take some, which shows that
// requests are counted, and they are made while they are.
func testRest(t *testing.T, s *Suite) {
	ctx := testctx.New(t)
	// A start is followed by some checks, the last after --iptables-resync: a daemon at rest has none in a longer time.
	const longerThanResync = 6 * time.Second
	rest, err := s.Rest(ctx, time.Second, time.Second, longerThanResync)
	for err == nil && rest.Requests != 0 {
		t.Logf("not at rest yet: %s", rest)
		rest, err = s.Rest(ctx, time.Second, time.Second, longerThanResync)
	}
	if err != nil {
		t.Errorf("%s, %v, want no request", rest, err)
	}
	t.Log(rest)
	stop, broken := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for f := allFaults()[0]; err == nil; {
			select {
			case <-stop:
				broken <- nil
				return
			default:
				_, err = s.Run(ctx, Case{Fault: f, Where: OneNode, Families: s.families})
			}
		}
		broken <- err
	}()
	sent, err := netlinkRequests(ctx, s.hosts[0].PID(), 0)
	close(stop)
	if err := errors.Join(err, <-broken); err != nil || sent == 0 {
		t.Errorf("%d requests, %v; want at least one for the repairs", sent, err)
	}
}

// TestLegacy does the faults of the packet filter to nodes whose iptables is the legacy one.
func TestLegacy(t *testing.T) {
	runAll(t, newSuite(t, Options{Legacy: true}), "our jumps and chains deleted", "our jump behind a DROP")
}

// TestNFTables does the faults of the packet filter to nodes that use nftables.
func TestNFTables(t *testing.T) {
	runAll(t, newSuite(t, Options{NFTables: true}), "table selvage: deleted", "table selvage: a rule put before ours", "table selvage: an element of each set deleted")
}

// TestPolicies does the faults of network policies, while connections are begun that are denied and such that are
// allowed: those that a fault does not concern never pass, and are never lost, and those that passed because of a fault
// end with its repair.
func TestPolicies(t *testing.T) {
	// With one connection after the other in a tenth of the usual number, a busy machine has room for all in its
	// queues.
	runAll(t, newSuite(t, Options{Policies: true, PolicyEvery: 40 * time.Millisecond}),
		"policies: table deleted", "policies: a pod put among the peers", "policies: sources: ports removed",
		"policies: bridge-nf-call off")
}

// fastTested are those faults of the fast path that are done here, one for each kind of object and each way in which the
// daemon learns of a change.
func fastTested() []string {
	return []string{
		"fast path: the uplink's programs detached", "fast path: a pin in the place of another",
		"fast path: a peer's address and MAC changed", "fast path: flow maps emptied", "fast path: conntrack not liberal, by another process's /proc",
		"fast path: VXLAN device deleted", "fast path: a pod deleted and added again",
		"fast path: daemon killed, packets stay fast, started again", "fast path: another's program before ours",
		"fast path: another's program after ours", "fast path: another's program on the way to a pod",
		"fast path: another's tc filter on the uplink",
	}
}

// TestFastPath does faults of the fast path: packets are slow meanwhile and not lost, and fast again after the repair.
func TestFastPath(t *testing.T) {
	if !fastpath.Permitted() {
		_, err := New(testctx.New(t), Options{FastPath: true, Bin: "../../bin"})
		if err == nil || !strings.Contains(err.Error(), "only root") {
			t.Errorf("where BPF programs cannot be loaded: %v", err)
		}
		return
	}
	s := newSuite(t, Options{FastPath: true, Families: []subnet.Family{subnet.IPv4}})
	for i, f := range s.options.Faults() {
		if !slices.Contains(fastTested(), f.Name) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) { run(t, s, Case{Fault: f, Where: OneNode, Families: s.Turns(f)[0], Host: i}) })
		if f.Name == fastTested()[0] || f.Name == fastTested()[1] {
			c := Case{Fault: f, Where: Stopped, Families: s.Turns(f)[0], Host: i}
			t.Run(f.Name+"/"+c.place(), func(t *testing.T) { run(t, s, c) })
		}
	}
}

// TestDirect does some of what can happen to routes out of the uplink, with either store: a node's lease changes with
// its uplink. With host-gw, packets are fast, too, where BPF programs can be loaded.
func TestDirect(t *testing.T) {
	for b, store := range map[Backend]subnet.StoreKind{Direct: subnet.StoreEtcd, HostGW: subnet.StoreKubernetes} {
		t.Run(string(b), func(t *testing.T) {
			s := newSuite(t, Options{Backend: b, Store: store, FastPath: b == HostGW && fastpath.Permitted()})
			for i, f := range s.options.Faults() {
				switch f.Name {
				case "direct route by another gateway", "another route put before the direct one", "direct routes flushed", "stale direct route added",
					"uplink down, then up", "uplink deleted, then recreated", alone().Name:
					turns := s.Turns(f)
					c := Case{Fault: f, Where: OneNode, Families: turns[i%len(turns)], Host: i}
					t.Run(f.Name+"/"+c.place(), func(t *testing.T) { run(t, s, c) })
				}
			}
		})
	}
}

func TestWalk(t *testing.T) {
	s := newSuite(t, Options{Policies: true})
	const most = 12
	seed, steps := rand.Uint64(), 0
	err := s.Walk(testctx.New(t), seed, func() bool { return steps < most }, func(o Outcome) {
		if steps++; o.Wrong != nil {
			t.Errorf("%s (%s):\n%s\nlog:\n%s", o.Fault.Name, o.place(), strings.Join(o.Wrong, "\n"), strings.Join(o.Log, "\n"))
		}
	})
	if err != nil || t.Failed() {
		t.Errorf("seed %d: %v", seed, err)
	}
	t.Logf("seed %d: %d faults", seed, steps)
}

// TestForeignIsSeen: a change of what is others' is to be found, or the suite shows nothing.
func TestForeignIsSeen(t *testing.T) {
	s := newSuite(t, Options{})
	h := s.hosts[0]
	if problems, err := h.checkForeign(t.Context()); err != nil || problems != nil {
		t.Fatalf("at first: %q, %v", problems, err)
	}
	for _, line := range []string{
		"nexthop id 7 via 192.168.42.7 proto 11 vxlan42",
		"nexthop id 17 via fd00:42::7 proto 11 vxlan42",
		"route fd00:18:7::/48 by nexthop 17",
		"nexthop id 9 blackhole proto 11",
		"nexthop id 10 via 172.31.0.200 fdb proto 11",
		"nexthop id 70 group [7 8] proto 11",
		"route 198.18.70.0/24 by nexthop 70",
	} {
		if !slices.Contains(h.others, line) {
			t.Errorf("the dump has no line %q:\n%s", line, strings.Join(h.others, "\n"))
		}
	}
	rule := func(f subnet.Family, command string) func() error {
		return func() error {
			return iptables(command)(t.Context(), &target{host: h, suite: s, families: []subnet.Family{f}})
		}
	}
	for name, change := range map[string]func() error{
		"a rule deleted":           rule(subnet.IPv4, "-D FOREIGN 1"),
		"a rule of IPv6 deleted":   rule(subnet.IPv6, "-D FOREIGN 1"),
		"a chain emptied":          rule(subnet.IPv4, "-t nat -F FOREIGN-NAT"),
		"a policy":                 rule(subnet.IPv6, "-P FORWARD ACCEPT"),
		"a nexthop object deleted": func() error { return h.nl.deleteNexthop(8) },
		"a route by another nexthop object": func() error {
			return h.nl.routeVia(netip.MustParsePrefix("198.18.9.0/24"), foreignNexthop(subnet.IPv4), unix.RTPROT_ZEBRA)
		},
	} {
		before, err := h.checkForeign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		after, err := h.checkForeign(t.Context())
		if err != nil || len(after) <= len(before) {
			t.Errorf("%s was not noticed: %q, %v", name, after, err)
		}
	}
}

// TestBroken: what the verifier is to find wrong while no daemon runs is found wrong for as long as none does.
func TestBroken(t *testing.T) {
	s := newSuite(t, Options{})
	h := s.hosts[0]
	h.Kill()
	dead := &target{host: h, suite: s, families: s.families, peer: s.lease(s.next(h)), peers: s.leases[1:]}
	if err := onDevice(tables.flush)(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	problems, err := h.check(s.leases)
	if err != nil || len(problems) != 2*3*(nodes-1) {
		t.Errorf("problems %q, %v, want a missing route, ARP or ND and FDB entry for each of %d peers in either family", problems, err, nodes-1)
	}
	if err := onDevice(func(d tables) error {
		return d.nl.flushNexthops(func(n nexthop) bool { return n.protocol == routeProtocol })
	})(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	if problems, err = h.check(s.leases); err != nil || len(problems) != (3+4)*(nodes-1) {
		t.Errorf("problems %q, %v, want a missing nexthop object of IPv4 as well", problems, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if problems, err := s.await(ctx, s.hosts, func(h *host) ([]string, error) { return h.check(s.leases) }); err != nil || problems == nil {
		t.Errorf("waiting for what nobody does ended with %q, %v", problems, err)
	}
}
