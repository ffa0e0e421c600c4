// Command bench measures what selvage costs and says for each figure whether what is to be reached is; see package bench.
//
//	bench                           all but what is only measured if asked for, about twelve minutes
//	bench --only start,latency      some parts of it
//	bench --only cluster            a thousand simulated nodes
//	bench --only settings           the overlay's device set otherwise, in turns with the default
//	bench --only path               packets between pods, with the fast path off and on
//	bench --only foreign            pods of another network, among 100,000 foreign routes
//	bench --only kube               the Kubernetes API as lease store among 5,000 Nodes, beside etcd and bin/flanneld
//	bench --only policy             network policies, beside rules as kube-router's and a node without any
//	bench --only soak --soak 1m     leases, pods and faults come and go: does anything grow
//	bench --only fleet              50 nodes among 5,000 leases
//	bench --only mesh               changes of a lease while clients load --mesh-addr
//	bench --peer flanneld           another daemon beside it, one that takes flannel's flags
//
// The exit code is 1 if something could not be measured. That a limit is not reached is said, and is no failure: the machine
// may be busy. --judge makes it one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/bench"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// flags are what the command is asked to do.
type flags struct {
	options             bench.Options
	json, text, picture string
	markdown            string
	judge, list         bool
}

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string, stdout, stderr io.Writer) int {
	fail := func(err error) int {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	f, err := parse(args, stderr)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return fail(err)
	case f.list:
		for _, p := range bench.Parts() {
			fmt.Fprintf(stdout, "%-9s %s\n", p.Name, p.What)
		}
		return 0
	}
	return sandbox.Options{Tmp: true}.Run(func() int {
		reached, err := inside(f, stdout, stderr)
		switch {
		case err != nil:
			return fail(err)
		case f.judge && !reached:
			return fail(errors.New("not everything is reached"))
		}
		return 0
	})
}

// inside is what runs in the sandbox. It reports whether every limit holds.
func inside(f flags, stdout, stderr io.Writer) (reached bool, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	f.options.Log = stderr
	report, err := bench.Run(ctx, f.options)
	if err != nil {
		return false, err
	}
	fmt.Fprintln(stdout)
	if err := report.Table(stdout); err != nil {
		return false, err
	}
	for _, out := range []struct {
		path  string
		write func(io.Writer) error
		skip  bool
	}{
		{f.json, report.JSON, false}, {f.text, report.Benchmarks, false},
		{f.picture, report.Picture, !report.HasPicture()}, {f.markdown, report.Markdown, false},
	} {
		if out.path == "" || out.skip {
			continue
		}
		if err := write(out.path, out.write); err != nil {
			return false, err
		}
		fmt.Fprintln(stdout, "written:", out.path)
	}
	return report.Reached(), nil
}

func write(path string, content func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(content(file), file.Close())
}

// parse reads the arguments. Help that is asked for goes to w.
func parse(args []string, w io.Writer) (f flags, err error) {
	o, store := &f.options, ""
	exe, err := os.Executable()
	if err != nil {
		return f, err
	}
	bin := filepath.Dir(exe)
	set := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(w)
	set.StringSliceVar(&o.Only, "only", nil,
		"parts to measure, see --list (default all but integrity, settings, foreign, policy, cluster, kube, "+
			"soak and fleet)")
	set.BoolVar(&f.list, "list", false, "list the parts and end")
	set.IntVar(&o.Rounds, "rounds", 5, "how often what takes a second or more is measured; the median is judged")
	set.IntVar(&o.Changes, "changes", 500, "how often a lease is added, changed and removed")
	set.IntSliceVar(&o.Sizes, "sizes", []int{100, 300, 1000, 3000, 5000, 10000, 20000}, "numbers of leases in the picture")
	set.IntVar(&o.Nodes, "nodes", 1000, "how many nodes the part cluster simulates")
	set.StringSliceVar(&o.Settings, "settings", nil, "which the part settings tries: "+strings.Join(bench.Settings(), ", ")+" (default all)")
	set.IntVar(&o.FleetNodes, "fleet-nodes", 50, "how many real nodes the part fleet has")
	set.IntVar(&o.FleetLeases, "fleet-leases", 5000, "how many leases it has besides")
	set.IntVar(&o.KubeNodes, "kube-nodes", 5000, "how many Nodes the part kube has")
	set.IntVar(&o.KubeAdded, "kube-added", 100, "how many it adds one by one")
	set.DurationVar(&o.KubeRest, "kube-rest", time.Minute, "how long it observes each daemon at rest")
	set.IntVar(&o.PolicyPods, "policy-pods", 10000, "how many pods the large cluster of the part policy has")
	set.IntVar(&o.Policies, "policies", 1000, "how many policies it has, and connections are judged by")
	set.IntVar(&o.PolicyChanges, "policy-changes", 200, "how often each kind of change is made")
	set.IntVar(&o.PolicyTurns, "policy-turns", 15, "how often connections are measured in each setting")
	set.DurationVar(&o.PolicyTurn, "policy-turn", 150*time.Millisecond, "for how long at a time")
	set.StringSliceVar(&o.PolicyParts, "policy-parts", nil,
		"what of the part policy to measure: "+strings.Join(bench.PolicyParts(), ", ")+" (default all)")
	set.IntVar(&o.PathFlows, "path-flows", 10000, "how many flows the part path measures with the fast path")
	set.IntVar(&o.PathPods, "path-pods", 100, "how many pods of one node")
	set.DurationVar(&o.PathRest, "path-rest", 30*time.Second, "how long it observes the daemons at rest")
	set.DurationVar(&o.PathTurn, "path-turn", 300*time.Millisecond, "for how long one thread measures at a time")
	set.StringSliceVar(&o.PathCases, "path-cases", nil, "texts of which one is in the name of each case (default all)")
	set.Float64Var(&o.Integrity, "integrity", 100, "how much data the part integrity sends, in GB")
	set.DurationVar(&o.Soak, "soak", 10*time.Minute, "how long the part soak goes on")
	set.StringVar(&store, "store", string(subnet.StoreEtcd),
		"of the leases of the part soak: etcd, or kubernetes, which is a stand-in for its API server")
	set.IntVar(&o.SoakFaults, "soak-faults", 2, "how many faults it has in each round")
	set.Uint64Var(&o.Seed, "seed", 0, "of these; 0: another one each time")
	set.StringVar(&o.Peer, "peer", os.Getenv("PEER_DAEMON"), "another daemon that takes flannel's flags, measured beside selvaged (default $PEER_DAEMON)")
	set.StringVar(&o.Bin, "bin", bin, "directory of selvaged, selvage, etcd and cni/")
	set.StringVar(&o.Root, "root", filepath.Dir(bin), "directory of the source, for the CNI plugin's own benchmark")
	set.StringVar(&f.json, "json", "", "file that gets the figures as JSON")
	set.StringVar(&f.text, "text", "", "file that gets them as go test -bench prints them, for benchstat")
	set.StringVar(&f.markdown, "markdown", "", "file that gets the table of the fast path, as Markdown")
	set.StringVar(&f.picture, "picture", "", "file that gets the picture, as SVG")
	set.StringVar(&o.Keep, "keep-logs", "", "directory, made by this, that the daemons' and etcd's logs are copied to")
	set.BoolVar(&f.judge, "judge", false, "fail if not everything is reached")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("takes no argument, got %q", set.Args())
	}
	var names, usual []string
	for _, p := range bench.Parts() {
		names = append(names, p.Name)
		if !p.Apart {
			usual = append(usual, p.Name)
		}
	}
	for _, name := range o.Only {
		if !slices.Contains(names, name) {
			return f, fmt.Errorf("--only: there is no part %q; the parts are %s", name, strings.Join(names, ", "))
		}
	}
	for _, name := range o.Settings {
		if !slices.Contains(bench.Settings(), name) {
			return f, fmt.Errorf("--settings: there is no setting %q; there are %s", name, strings.Join(bench.Settings(), ", "))
		}
	}
	if len(o.Only) == 0 {
		o.Only = usual
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Rounds < 1 || o.Changes < 1 || o.Nodes < 1 {
		return f, errors.New("--rounds, --changes and --nodes: want at least 1")
	}
	if o.Soak <= 0 || o.SoakFaults < 0 {
		return f, errors.New("--soak: want more than 0; --soak-faults: want 0 or more")
	}
	if o.Integrity <= 0 {
		return f, fmt.Errorf("--integrity=%g: want more than 0", o.Integrity)
	}
	if o.Store, err = lab.ParseStore(store); err != nil {
		return f, fmt.Errorf("--store: %w", err)
	}
	if o.FleetNodes < 2 || o.FleetNodes > 200 {
		return f, fmt.Errorf("--fleet-nodes=%d: want 2 to 200", o.FleetNodes)
	}
	if o.FleetLeases < 1 || o.FleetLeases > bench.MaxLeases {
		return f, fmt.Errorf("--fleet-leases=%d: want 1 to %d", o.FleetLeases, bench.MaxLeases)
	}
	if o.KubeAdded < 1 || o.KubeNodes < 1 || o.KubeNodes+o.KubeAdded > bench.MaxLeases {
		return f, fmt.Errorf("--kube-nodes=%d, --kube-added=%d: want at least 1, and together at most %d",
			o.KubeNodes, o.KubeAdded, bench.MaxLeases)
	}
	if o.KubeRest <= 0 {
		return f, errors.New("--kube-rest: want more than 0")
	}
	if o.PolicyPods < 500 || o.PolicyPods > bench.MaxPolicyPods || o.Policies < 100 || o.Policies > bench.MaxPolicies {
		return f, fmt.Errorf("--policy-pods=%d, --policies=%d: want 500 to %d, and 100 to %d",
			o.PolicyPods, o.Policies, bench.MaxPolicyPods, bench.MaxPolicies)
	}
	if o.PolicyChanges < 1 || o.PolicyTurns < 1 || o.PolicyTurn <= 0 {
		return f, errors.New("--policy-changes, --policy-turns and --policy-turn: want more than 0")
	}
	for _, name := range o.PolicyParts {
		if !slices.Contains(bench.PolicyParts(), name) {
			return f, fmt.Errorf("--policy-parts: there is no %q; there are %s", name,
				strings.Join(bench.PolicyParts(), ", "))
		}
	}
	if o.PathFlows < 100 || o.PathFlows > bench.MaxPathFlows || o.PathPods < 2 || o.PathPods > bench.MaxPathPods ||
		o.PathRest <= 0 || o.PathTurn <= 0 {
		return f, fmt.Errorf("--path-flows=%d, --path-pods=%d, --path-rest=%s, --path-turn=%s: want 100 to %d, "+
			"2 to %d, and more than 0", o.PathFlows, o.PathPods, o.PathRest, o.PathTurn, bench.MaxPathFlows, bench.MaxPathPods)
	}
	for _, n := range o.Sizes {
		if n < 1 || n > bench.MaxLeases {
			return f, fmt.Errorf("--sizes: %d, want 1 to %d", n, bench.MaxLeases)
		}
	}
	for _, path := range []*string{&o.Bin, &o.Root, &f.json, &f.text, &f.picture, &f.markdown, &o.Peer, &o.Keep} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}
