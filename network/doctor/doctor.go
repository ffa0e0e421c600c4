package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Timeouts of requests to the daemon. It needs longer for the store, which it asks itself.
const (
	daemonTimeout = 5 * time.Second
	storeTimeout  = 6 * time.Second
)

// Options select what to examine.
type Options struct {
	Socket     string
	SubnetFile string // used if neither the daemon nor the CNI configuration names one
	CNIConfDir string // empty: skip the CNI checks
	CNIBinDirs []string
	Peer       string   // probe only this one: a node's name, lease key, subnet or public IP; empty: any
	Sample     int      // number of peers to probe; 0: all
	Checks     []string // run only these, see [Checks]; empty: all
	Now        func() time.Time
	// Progress, if not nil, is called as the work proceeds: done of of steps. Calls do not overlap.
	Progress func(what string, done, of int)
}

// selects reports whether a check is to be run.
func (o Options) selects(check string) bool {
	return len(o.Checks) == 0 || slices.Contains(o.Checks, check)
}

// ErrNoPeer is returned if no peer matches [Options].Peer.
var ErrNoPeer = errors.New("no such peer")

// Examine gathers facts, probes peers and runs the selected checks. When ctx ends, it returns the findings so far. It
// returns an error only if it could not examine the node at all.
func Examine(ctx context.Context, o Options) (Report, error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	o.Progress("examining this node", 0, 0)
	f := gather(ctx, o)
	if errors.Is(f.DaemonErr, fs.ErrPermission) {
		return Report{}, f.DaemonErr
	}
	var targets []probe.Target
	if o.selects(peersCheck) {
		var err error
		if targets, err = f.targets(o); err != nil {
			return Report{}, err
		}
	}
	var wg sync.WaitGroup
	var report *status.StoreReport
	var storeErr error
	wg.Go(func() { report, storeErr = askStore(ctx, status.NewClient(o.Socket), f.Status != nil) })
	if len(targets) > 0 {
		f.ProbeErr = f.probe(ctx, o, targets)
	}
	o.Progress("waiting for "+f.words().Name, 0, 0)
	wg.Wait()
	f.Store, f.StoreErr = report, storeErr
	r := Report{At: f.Now, Result: Pass, Peers: len(f.Peers), Findings: judge(f, o.selects)}
	if f.Status != nil {
		r.Node = f.Status.Node
	}
	probed := map[string]bool{}
	for _, p := range f.Paths {
		if p.Probed {
			probed[p.Key] = true
		}
	}
	r.Probed = len(probed)
	if len(r.Findings) > 0 {
		r.Result = r.Findings[0].Level
	}
	return r, nil
}

// targets selects the peers to probe: those that do not answer the daemon, or not always, and others at random, so that
// repeated runs cover all of them.
func (f *Facts) targets(o Options) (all []probe.Target, err error) {
	if f.Status == nil || f.Status.Backend == nil {
		return nil, nil
	}
	var peers []status.Peer
	for _, p := range f.Peers {
		if (p.State == status.Programmed || p.State == status.Pending) && (o.Peer == "" || matchesPeer(p, o.Peer)) {
			peers = append(peers, p)
		}
	}
	if o.Peer != "" && len(peers) == 0 {
		return nil, fmt.Errorf("%w: %q matches no node name, lease key, subnet or public IP; selvaged peers lists them",
			ErrNoPeer, o.Peer)
	}
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	slices.SortStableFunc(peers, func(a, b status.Peer) int { return cmp.Compare(f.rank(a), f.rank(b)) })
	if o.Sample > 0 && len(peers) > o.Sample {
		peers = peers[:o.Sample]
	}
	slices.SortFunc(peers, func(a, b status.Peer) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Key, b.Key))
	})
	for _, p := range peers {
		all = append(all, f.targetsOf(p)...)
	}
	return all, nil
}

// rank is 0 for a peer that does not answer the daemon, 1 for one that does not answer all its probes, else 2.
func (f *Facts) rank(p status.Peer) int {
	lossy := func(probes status.Probes) bool {
		return slices.ContainsFunc(probes.Peers, func(x status.ProbedPeer) bool { return x.Lossy && x.Key == p.Key })
	}
	switch {
	case slices.ContainsFunc(p.Reach, func(r status.Reach) bool { return r.State == status.Unreachable }):
		return 0
	case slices.ContainsFunc(f.Status.Probes, lossy):
		return 1
	}
	return 2
}

func matchesPeer(p status.Peer, name string) bool {
	return p.Node == name || p.Key == name ||
		slices.ContainsFunc(p.Subnets, func(s netip.Prefix) bool { return s.String() == name }) ||
		slices.ContainsFunc(p.PublicIP, func(a netip.Addr) bool { return a.String() == name })
}

// targetsOf returns the targets of one peer, one for each family.
func (f *Facts) targetsOf(p status.Peer) (all []probe.Target) {
	for i, s := range p.Subnets {
		if i >= len(p.PublicIP) || i >= len(p.Paths) || p.Paths[i].Device == "" {
			continue
		}
		family := subnet.FamilyOf(s.Addr())
		t := probe.Target{
			Key: p.Key, Node: p.Node, Family: family, Subnet: s, Underlay: p.PublicIP[i],
			Overlay: s.Addr(), FullSize: f.podMTU(),
		}
		if t.Link = p.Paths[i].Device; !p.Paths[i].Direct {
			t.Tunnel, t.Overhead = true, f.device(t.Link).Overhead
		}
		if len(f.Status.Backend.Devices) == 0 {
			t.NoDevice, t.Overlay = true, subnet.Gateway(s).Addr()
		}
		all = append(all, t)
	}
	return all
}

// maxDetailed is the maximum number of paths that are probed in detail, which takes seconds. Where hundreds of peers
// do not answer, more of them add no information.
const maxDetailed = 256

// maxExplained is the maximum number of unreachable peers for which the daemon explains its routing.
const maxExplained = 3

// probe probes the targets, and probes those that do not answer in detail.
func (f *Facts) probe(ctx context.Context, o Options, targets []probe.Target) error {
	options := probe.Options{}
	if u := f.Status.Uplink; u != nil {
		for _, a := range u.Local {
			options.Local[subnet.FamilyOf(a)] = a
		}
	}
	for _, d := range f.devices() {
		options.Port = d.Port
	}
	prober, err := probe.Open(ctx, options)
	if err != nil {
		return err
	}
	defer prober.Close()
	first, cancel := context.WithCancel(ctx)
	if end, ok := ctx.Deadline(); ok { // half of the time is for the detailed probes
		first, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(end)/2))
	}
	defer cancel()
	f.Paths = prober.Probe(first, targets, progressCounter(o, "probing the paths to other nodes", len(targets)))
	f.measureLoss(first, prober, o)
	var bad []int
	for i, p := range f.Paths {
		if p.Probed && !p.Works() {
			bad = append(bad, i)
		}
	}
	if len(bad) == 0 || ctx.Err() != nil {
		return nil
	}
	f.Skipped = map[string]bool{}
	for _, i := range bad[min(len(bad), maxDetailed):] {
		f.Skipped[f.Paths[i].Key] = true
	}
	bad = bad[:min(len(bad), maxDetailed)]
	detailed := make([]probe.Path, len(bad))
	for i, at := range bad {
		detailed[i] = f.Paths[at]
		delete(f.Skipped, f.Paths[at].Key) // the peer's path of the other family may have been skipped
	}
	before := readDropCounters(f.scope())
	done := progressCounter(o, "probing the paths that do not answer in detail", len(detailed))
	err = prober.ProbeDetail(ctx, detailed, done)
	for i, at := range bad {
		f.Paths[at] = detailed[i]
	}
	f.Counters = readDropCounters(f.scope()).since(before)
	f.Unresolved, f.Underlay = gatherUnresolved(), f.gatherUnderlay()
	f.Discards = f.gatherDiscards()
	f.explain(ctx, o)
	return err
}

// explain asks the daemon how packets to some of the unreachable peers are routed.
func (f *Facts) explain(ctx context.Context, o Options) {
	f.Explained = map[string]status.Explanation{}
	client := status.NewClient(o.Socket)
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	for _, p := range f.Paths {
		if p.Detail == nil || p.Works() || len(f.Explained) >= maxExplained {
			continue
		}
		if x, err := client.Explain(ctx, subnet.Gateway(p.Subnet).Addr()); err == nil {
			f.Explained[p.Key] = x
		}
	}
}

// progressCounter returns a function that reports one more completed step. It is safe for concurrent use.
func progressCounter(o Options, what string, of int) func() {
	done := make(chan int, 1)
	done <- 0
	o.Progress(what, 0, of)
	return func() {
		n := <-done + 1
		o.Progress(what, n, of)
		done <- n
	}
}
