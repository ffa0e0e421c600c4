// Command conformance runs other projects' suites for network policies in a real Kubernetes with selvage as its
// network; see package k8slab.
//
//	conformance                            all suites: e2e, cluster and cyclonus
//	conformance --suites e2e,cluster       some of them
//	conformance --focus 'CIDR|named port'  only cases with that in their names, of e2e and cluster
//	conformance --tags conflict,port       only cases of cyclonus with one of these tags
//	conformance --protocols TCP            only probes of cyclonus over some protocols
//	conformance --families ipv6            with one family of addresses, in place of both
//	conformance --json FILE                write the results for programs, too
//	conformance --logs DIRECTORY           where to keep what all commands and suites print
//
// It needs root, containerd, runc, iptables and nft. Its last line has the numbers of cases that passed, failed and
// were not run. The exit code is 1 if one failed, or if a suite could not be run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/k8slab"
	"github.com/selvage-net/selvage/dist/k8slab/results"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string) int {
	o := k8slab.Options{Store: subnet.StoreKubernetes, Manifest: k8slab.Manifest(subnet.StoreKubernetes)}
	var c k8slab.Conformance
	known := k8slab.ConformanceSuites()
	set := flag.NewFlagSet("conformance", flag.ContinueOnError)
	set.StringVar(&o.Bin, "bin", "bin", "directory of selvaged, selvage, etcd, cni/, k8s/ and image/")
	set.StringVar(&o.Containerd, "containerd", "", "directory of containerd, its shim and ctr (default found by PATH)")
	set.IntVar(&o.Nodes, "nodes", 2, "how many nodes")
	set.StringVar(&o.Logs, "logs", "", "directory for what the commands print (default none that stays)")
	set.BoolVar(&o.FastPath, "fast-path", false, "have the daemons use the fast path")
	families := set.String("families", "dual", "of pods, services and nodes: ipv4, ipv6 or dual")
	suites := set.String("suites", strings.Join(known, ","), "which suites, separated by commas")
	focus := set.String("focus", "", "regular expression for names of cases of e2e and cluster to run (default all)")
	tags := set.String("tags", "", "tags of cyclonus' cases to run, separated by commas (default as it does)")
	protocols := set.String("protocols", "",
		"protocols that cyclonus probes, separated by commas (default TCP,UDP,SCTP)")
	set.IntVar(&c.Parallel, "parallel", 3, "how many cases of e2e to run at a time")
	file := set.String("json", "", "file for the results")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if set.NArg() > 0 || o.Nodes < 2 || c.Parallel < 1 {
		return fail(fmt.Errorf("want no arguments, two nodes and one case at a time at least; got %q, %d and %d",
			set.Args(), o.Nodes, c.Parallel))
	}
	c.Suites = strings.Split(*suites, ",")
	for _, s := range c.Suites {
		if !slices.Contains(known, s) {
			return fail(fmt.Errorf("--suites: %q, want %s", s, strings.Join(known, ", ")))
		}
	}
	if *tags != "" {
		c.Tags = strings.Split(*tags, ",")
	}
	if *protocols != "" {
		c.Protocols = strings.Split(*protocols, ",")
	}
	var err error
	if *focus != "" {
		if c.Focus, err = regexp.Compile(*focus); err != nil {
			return fail(fmt.Errorf("--focus: %w", err))
		}
	}
	if o.Families, err = lab.ParseFamilies(*families); err != nil {
		return fail(fmt.Errorf("--families: %w", err))
	}
	for _, path := range []*string{&o.Logs, &o.Manifest, &o.Containerd, file} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil { // it must hold on every node
			return fail(err)
		}
	}
	return sandbox.Options{Outside: containerd.Cgroups}.Run(func() int { return inside(o, c, *file) })
}

// inside is what runs in the sandbox.
func inside(o k8slab.Options, c k8slab.Conformance, file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	cases, err := k8slab.Conform(ctx, o, c, os.Stdout)
	if file != "" {
		data, marshalErr := json.MarshalIndent(cases, "", "  ")
		if marshalErr == nil {
			marshalErr = os.WriteFile(file, append(data, '\n'), 0o644)
		}
		err = errors.Join(err, marshalErr)
	}
	if err != nil {
		return fail(err)
	}
	if results.CountOf(cases).Failed > 0 {
		return 1
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
	return 1
}
