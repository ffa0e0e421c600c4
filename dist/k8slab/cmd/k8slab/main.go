// Command k8slab runs a real Kubernetes with selvage as its network, and goes through what happens to one; see package k8slab.
//
//	k8slab                         all steps, with the leases in the Kubernetes API
//	k8slab --store etcd            with the leases in etcd
//	k8slab --migrate               from kube-flannel to selvage and back, in place of the usual steps
//	k8slab --families ipv4         with one family of addresses, in place of both
//	k8slab --install               only the steps of an installation, and of a removal
//	k8slab --fast-path             with the fast path
//	k8slab --list                  what they are
//	k8slab --shell                 afterwards, a shell in which kubectl works
//	k8slab --until 'services'      no further than the first step with that in its name
//	k8slab --skip 'services,FORWARD'  without the steps that have one of these in their names
//	k8slab --repeat 20             what is done to a running cluster, twenty times
//	k8slab --logs DIRECTORY        where to keep what all commands print
//
// It needs root, containerd, runc, iptables and nft. The exit code is 1 if anything was not as it has to be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/k8slab"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string) int {
	var o k8slab.Options
	set := flag.NewFlagSet("k8slab", flag.ContinueOnError)
	set.StringVar(&o.Bin, "bin", "bin", "directory of selvaged, selvage, etcd, etcdutl, cni/, k8s/ and image/")
	store := set.String("store", string(subnet.StoreKubernetes), "where the leases are: kubernetes or etcd")
	set.StringVar(&o.Manifest, "manifest", "", "the DaemonSet's (default the store's in dist/kubernetes)")
	set.StringVar(&o.Rendered, "rendered", "dist/chart/testdata", "files of the chart with every value set, which the apiserver is to take")
	set.StringVar(&o.Containerd, "containerd", "", "directory of containerd, its shim and ctr (default found by PATH)")
	set.IntVar(&o.Nodes, "nodes", 3, "how many nodes, 2 or more")
	set.StringVar(&o.Logs, "logs", "", "directory for what the commands print (default none that stays)")
	families := set.String("families", "dual", "of pods, services and nodes: ipv4, ipv6 or dual")
	set.StringVar(&o.Image, "image", "", "archive of selvage's image (default that of make image)")
	install := set.Bool("install", false, "install selvage, try it, and remove it: no other steps")
	migrate := set.Bool("migrate", false, "migrate from kube-flannel and back; needs flanneld and flannel/ in --bin")
	set.BoolVar(&o.FastPath, "fast-path", false, "have the daemons use the fast path, and look whether they do")
	until := set.String("until", "", "end after the first step whose name has this in it")
	skip := set.String("skip", "", "leave out the steps whose names have one of these in them, separated by commas")
	repeat := set.Int("repeat", 1, "how many times to do what leaves the cluster as it was")
	list := set.Bool("list", false, "list the steps and end")
	shell := set.Bool("shell", false, "have a shell in the end, with the cluster still up")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if set.NArg() > 0 || o.Nodes < 2 || *repeat < 1 {
		return fail(fmt.Errorf("want no arguments, two nodes and one time at least; got %q, %d and %d", set.Args(), o.Nodes, *repeat))
	}
	var err error
	if o.Families, err = lab.ParseFamilies(*families); err != nil {
		return fail(fmt.Errorf("--families: %w", err))
	}
	if o.Store, err = k8slab.ParseStore(*store); err != nil {
		return fail(fmt.Errorf("--store: %w", err))
	}
	if o.Manifest == "" {
		o.Manifest = k8slab.Manifest(o.Store)
	}
	steps := k8slab.Steps(o.Store)
	if *migrate && o.Store != subnet.StoreKubernetes {
		return fail(errors.New("--migrate is for --store kubernetes: kube-flannel's leases are in the Kubernetes API"))
	}
	if *migrate {
		steps = k8slab.Migration(o.Nodes)
	}
	if *install {
		steps = k8slab.Installation(steps)
	}
	if o.FastPath {
		steps = k8slab.WithFastPath(steps)
	}
	if *until != "" {
		if steps, err = k8slab.UpTo(steps, *until); err != nil {
			return fail(fmt.Errorf("--until: %w; see --list", err))
		}
	}
	if *skip != "" {
		steps = k8slab.Without(steps, strings.Split(*skip, ","))
	}
	steps = k8slab.Repeat(steps, *repeat)
	if *list {
		for _, s := range steps {
			fmt.Println(s.Name)
		}
		return 0
	}
	for _, path := range []*string{&o.Logs, &o.Manifest, &o.Image, &o.Rendered, &o.Containerd} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil { // it must hold on every node
			return fail(err)
		}
	}
	return sandbox.Options{Outside: containerd.Cgroups}.Run(func() int { return inside(o, steps, *shell) })
}

// inside is what runs in the sandbox.
func inside(o k8slab.Options, steps []k8slab.Step, shell bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	var hold func(context.Context, *k8slab.Cluster) error
	if shell {
		hold = prompt
	}
	if err := k8slab.Run(ctx, o, steps, os.Stdout, hold); err != nil {
		return fail(err)
	}
	return 0
}

// prompt runs a shell.
func prompt(ctx context.Context, c *k8slab.Cluster) error {
	fmt.Println("kubectl works here; exit ends it all")
	cmd := exec.CommandContext(ctx, "sh", "-i")
	cmd.Env = append(os.Environ(), c.Environment()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.WaitDelay = time.Second
	_ = cmd.Run() // its exit code is that of the last command typed
	return nil
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "k8slab: %v\n", err)
	return 1
}
