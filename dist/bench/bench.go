package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
)

// Options say what to measure.
type Options struct {
	// Bin is the directory of selvaged, selvage, etcd and cni/.
	Bin string
	// Root is the directory of the product's module, for its own benchmarks.
	Root string
	// Only are names of Parts; none: all that a run without arguments measures.
	Only []string
	// Rounds is how often what takes a second or more is measured.
	Rounds int
	// Changes is how often a lease is added, changed and removed.
	Changes int
	// Nodes is how many there are in the part "cluster".
	Nodes int
	// Settings are names of those to be tried in the part "settings"; none: all.
	Settings []string
	// FleetNodes are real, and FleetLeases are of nodes that do not exist, in the part "fleet".
	FleetNodes, FleetLeases int
	// KubeNodes is how many Nodes there are in the part "kube", KubeAdded how many are added one by one.
	KubeNodes, KubeAdded int
	// KubeRest is how long that part observes each daemon at rest.
	KubeRest time.Duration
	// PolicyPods and Policies are how many pods and policies the large cluster of the part "policy" has.
	PolicyPods, Policies int
	// PolicyChanges is how often each kind of change is made there, PolicyParts what is measured; none: all of
	// [PolicyParts].
	PolicyChanges int
	PolicyParts   []string
	// PolicyTurns is how often connections are measured there in each setting, PolicyTurn for how long at a time.
	PolicyTurns int
	PolicyTurn  time.Duration
	// PathFlows, PathPods and PathRest are how many flows and pods are measured with the fast path in the part "path",
	// and how long its daemons are observed at rest.
	PathFlows, PathPods int
	PathRest            time.Duration
	// PathTurn is for how long its ways are measured at a time by one thread.
	PathTurn time.Duration
	// PathCases are texts of which one is in the name of each case that it measures; none: all.
	PathCases []string
	// Integrity is how much data the part "integrity" sends, in GB.
	Integrity float64
	// Rest is how long after the start of all their memory is read; 0: as long as elsewhere.
	Rest time.Duration
	// Soak is how long the part "soak" goes on.
	Soak time.Duration
	// Store is where the leases of the part "soak" are; default etcd.
	Store subnet.StoreKind
	// SoakFaults is how many faults there are between two samples.
	SoakFaults int
	// Seed makes them others.
	Seed uint64
	// Sizes are the numbers of leases in the picture.
	Sizes []int
	// Peer is another daemon that takes flannel's flags; empty: none, or in the part "kube" Bin/flanneld if it exists.
	Peer string
	// Log gets a line for each step.
	Log io.Writer
	// Keep keeps the daemons' logs, by copying them into this directory.
	Keep string
}

func (o Options) program(name string) string { return filepath.Join(o.Bin, name) }

// Part is a number of figures that are measured together.
type Part struct {
	Name, What string
	// Apart: it is measured only if it is asked for.
	Apart bool
	run   func(context.Context, *bench) error
	// Lab: it makes nodes, an underlay and an etcd of its own.
	Lab bool
}

// Parts lists what can be measured, in the order in which it is.
func Parts() []Part {
	return []Part{
		{Name: "start", What: "start among many leases until all entries are in the kernel; CPU; requests to etcd", run: starts},
		{Name: "memory", What: "memory, at its peak and at rest", run: memories},
		{Name: "restart", What: "start where all is in the kernel already", run: restarts},
		{Name: "renewal", What: "what other nodes hear of a renewal", run: renewals},
		{Name: "latency", What: "one lease added, changed, removed: from etcd's answer to the kernel", run: latencies},
		{Name: "bulk", What: "hundreds of leases at once", run: bulks},
		{Name: "read", What: "a full read of the kernel that finds all right", run: reads},
		{Name: "attach", What: "what the CNI plugin adds to the bridge plugin", run: attaches},
		{Name: "binaries", What: "sizes of the programs", run: binaries},
		{Name: "sizes", What: "start by number of leases, for the picture", run: sizes},
		{Name: "path", What: "throughput, latency and CPU between pods on two nodes, with the fast path off and on, " +
			"beside the bare underlay and a veth pair", run: paths},
		{Name: "integrity", What: "is every byte that takes the fast path the one that was sent, and no packet invalid",
			run: integrity, Apart: true, Lab: true},
		{Name: "settings", What: "the same with the device set otherwise, in turns with the default", run: settings, Apart: true},
		{Name: "foreign", What: "pods of another network added and removed, among foreign routes and devices",
			run: foreign, Apart: true},
		{Name: "policy", What: "network policies: changes, connections and memory, beside kube-router's rules and none",
			run: policies, Apart: true, Lab: true},
		{Name: "cluster", What: "a thousand nodes at one etcd, and through its gRPC proxy", run: clusters, Apart: true},
		{Name: "kube", What: "the Kubernetes API as lease store among thousands of Nodes, beside etcd and flannel",
			run: kubes, Apart: true},
		{Name: "soak", What: "leases, pods and faults come and go: does anything grow", run: soaks, Apart: true, Lab: true},
		{Name: "mesh", run: meshes, Apart: true,
			What: "changes of a lease while strangers, slow clients and nodes load --mesh-addr, in turns with none"},
		{Name: "fleet", What: "many real nodes among thousands of leases, their pods sending all the while", run: fleets, Apart: true, Lab: true},
	}
}

// bench is a run.
type bench struct {
	Options
	report   *Report
	dir      string
	etcd     *etcdserver.Server
	client   *clientv3.Client
	clusters map[string]*cluster
	nodes    int
}

// Run measures. It belongs into a sandbox, and leaves nothing behind.
func Run(ctx context.Context, o Options) (*Report, error) {
	b := &bench{Options: o, report: &Report{Machine: describeMachine(o)}, clusters: map[string]*cluster{}}
	err := b.measure(ctx)
	return b.report, errors.Join(err, b.close())
}

func (b *bench) measure(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("/run", "bench-"); err != nil {
		return err
	}
	for _, p := range Parts() {
		if len(b.Only) > 0 && !slices.Contains(b.Only, p.Name) {
			continue
		}
		prepare := b.open
		if p.Lab {
			prepare = func(context.Context) error { return b.shut() }
		}
		if err := prepare(ctx); err != nil {
			return err
		}
		began := time.Now()
		b.step("%s: %s", p.Name, p.What)
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		b.step("%s took %s", p.Name, time.Since(began).Round(time.Second))
	}
	return nil
}

// open makes the underlay and etcd, unless they are there.
func (b *bench) open(ctx context.Context) (err error) {
	if b.etcd != nil {
		return nil
	}
	if err := makeUnderlay(); err != nil {
		return fmt.Errorf("make the underlay: %w", err)
	}
	b.etcd, err = etcdserver.Start(ctx, etcdserver.Options{
		Binary: b.program("etcd"), Dir: b.dir, Host: router, Flags: []string{fmt.Sprintf("--max-txn-ops=%d", opsPerTransaction)},
	})
	if err != nil {
		return err
	}
	b.client, err = clientv3.New(clientv3.Config{Endpoints: []string{b.etcd.Endpoint()}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		return fmt.Errorf("etcd client: %w", err)
	}
	return nil
}

// shut undoes open: a lab wants the place.
func (b *bench) shut() (err error) {
	if b.client != nil {
		err = b.client.Close()
	}
	if b.etcd != nil {
		b.etcd.Kill()
		err = errors.Join(err, netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: underlay}}))
	}
	b.client, b.etcd = nil, nil
	clear(b.clusters)
	return err
}

func (b *bench) close() error {
	err := b.shut()
	if b.Keep != "" {
		err = errors.Join(err, os.CopyFS(b.Keep, os.DirFS(b.dir)))
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// keep takes a log of a lab's, which goes with it, to the others if they are to be kept.
func (b *bench) keep(log string) error {
	if b.Keep == "" {
		return nil
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, filepath.Base(log)), text, 0o644)
}

// step tells the user what is done next.
func (b *bench) step(format string, args ...any) { fmt.Fprintf(b.Log, format+"\n", args...) }

// programs are those to be measured, selvaged first.
func (b *bench) programs(args ...string) []program {
	all := []program{{name: "selvaged", path: b.program("selvaged"), args: args}}
	if b.Peer != "" {
		all = append(all, program{name: "peer", path: b.Peer})
	}
	return all
}

// isPeer reports whether p is not the selvaged that is measured.
func (p program) isPeer() bool { return p.name == "peer" }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
