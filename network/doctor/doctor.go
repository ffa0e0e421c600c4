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

// How long others may take.
const (
	daemonPatience = 5 * time.Second
	etcdPatience   = 6 * time.Second
)

// Options say what to look at.
type Options struct {
	Socket     string
	SubnetFile string // for want of a daemon that says where it is
	CNIConfDir string // empty: there is none to look at
	CNIBinDirs []string
	Peer       string   // the only one to probe: a node's name, its key, subnet or public IP; empty: any
	Sample     int      // how many to probe; 0: all
	Checks     []string // the only ones to make, see [Checks]; none: all
	Now        func() time.Time
	// Progress is told what is done, and how far it is; may be nil.
	Progress func(what string, done, of int)
}

// wants reports whether a check is to be made.
func (o Options) wants(check string) bool {
	return len(o.Checks) == 0 || slices.Contains(o.Checks, check)
}

// ErrNoPeer is when there is no peer of the name asked for.
var ErrNoPeer = errors.New("no such peer")

// Examine looks at everything. It ends when ctx does, with what is known by then. The error is why it could not be done at all.
func Examine(ctx context.Context, o Options) (Report, error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	o.Progress("looking at this node", 0, 0)
	f := gather(ctx, o)
	if errors.Is(f.DaemonErr, fs.ErrPermission) {
		return Report{}, f.DaemonErr
	}
	var targets []probe.Target
	if o.wants(checkOfPeers) {
		var err error
		if targets, err = f.targets(o); err != nil {
			return Report{}, err
		}
	}
	var asking sync.WaitGroup
	var report *status.EtcdReport
	var etcdErr error
	asking.Go(func() { report, etcdErr = askEtcd(ctx, status.NewClient(o.Socket), f.Status != nil) })
	if len(targets) > 0 {
		f.ProbeErr = f.probe(ctx, o, targets)
	}
	o.Progress("waiting for etcd", 0, 0)
	asking.Wait()
	f.Etcd, f.EtcdErr = report, etcdErr
	r := Report{At: f.Now, Result: Pass, Peers: len(f.Peers), Findings: judge(f, o.wants)}
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

// targets chooses the peers to probe: at random, so that a node that is asked now and then asks all in time.
func (f *Facts) targets(o Options) (all []probe.Target, err error) {
	if f.Status == nil || f.Status.Backend == nil {
		return nil, nil
	}
	var peers []status.Peer
	for _, p := range f.Peers {
		if (p.State == status.Programmed || p.State == status.Pending) && (o.Peer == "" || goesBy(p, o.Peer)) {
			peers = append(peers, p)
		}
	}
	if o.Peer != "" && len(peers) == 0 {
		return nil, fmt.Errorf("%w: %q is no node's name, subnet or public IP; selvaged peers lists them", ErrNoPeer, o.Peer)
	}
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	if o.Sample > 0 && len(peers) > o.Sample {
		peers = peers[:o.Sample]
	}
	slices.SortFunc(peers, func(a, b status.Peer) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Key, b.Key)) })
	for _, p := range peers {
		all = append(all, f.targetsOf(p)...)
	}
	return all, nil
}

func goesBy(p status.Peer, name string) bool {
	return p.Node == name || p.Key == name ||
		slices.ContainsFunc(p.Subnets, func(s netip.Prefix) bool { return s.String() == name }) ||
		slices.ContainsFunc(p.PublicIP, func(a netip.Addr) bool { return a.String() == name })
}

// targetsOf returns the ways to one peer, one a family.
func (f *Facts) targetsOf(p status.Peer) (all []probe.Target) {
	for i, s := range p.Subnets {
		if i >= len(p.PublicIP) || i >= len(p.Paths) || p.Paths[i].Device == "" {
			continue
		}
		family := subnet.FamilyOf(s.Addr())
		t := probe.Target{
			Key: p.Key, Node: p.Node, Family: family, Subnet: s, Underlay: p.PublicIP[i],
			Overlay: s.Addr(), Full: f.podMTU(),
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

// manyCloser is how many ways to other nodes that do not answer are looked at closer, which takes seconds: where hundreds do not,
// more of them tell nothing new.
const manyCloser = 256

// manyExplained is of how many peers that are not reached the daemon is asked why.
const manyExplained = 3

// probe probes the targets, and looks closer at those that are not reached.
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
	if end, ok := ctx.Deadline(); ok { // the second look is to have time, too
		first, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(end)/2))
	}
	defer cancel()
	f.Paths = prober.Look(first, targets, counter(o, "probing the ways to other nodes", len(targets)))
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
	for _, i := range bad[min(len(bad), manyCloser):] {
		f.Skipped[f.Paths[i].Key] = true
	}
	bad = bad[:min(len(bad), manyCloser)]
	closer := make([]probe.Path, len(bad))
	for i, at := range bad {
		closer[i] = f.Paths[at]
		delete(f.Skipped, f.Paths[at].Key) // by its other family
	}
	before := count()
	err = prober.LookAgain(ctx, closer, counter(o, "looking closer at those that do not answer", len(closer)))
	for i, at := range bad {
		f.Paths[at] = closer[i]
	}
	f.Counted = count().since(before)
	f.Unresolved = gatherUnresolved()
	f.explain(ctx, o)
	return err
}

// explain asks the daemon of some peers that are not reached how it would reach them.
func (f *Facts) explain(ctx context.Context, o Options) {
	f.Explained = map[string]status.Explanation{}
	client := status.NewClient(o.Socket)
	ctx, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	for _, p := range f.Paths {
		if p.Again == nil || p.Works() || len(f.Explained) >= manyExplained {
			continue
		}
		if x, err := client.Explain(ctx, subnet.Gateway(p.Subnet).Addr()); err == nil {
			f.Explained[p.Key] = x
		}
	}
}

// counter returns what counts progress. It may be called from many goroutines.
func counter(o Options, what string, of int) func() {
	done := make(chan int, 1)
	done <- 0
	o.Progress(what, 0, of)
	return func() {
		n := <-done + 1
		o.Progress(what, n, of)
		done <- n
	}
}
