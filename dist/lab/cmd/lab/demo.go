package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// drawing has place for the addresses of the outside and of the underlay, in a column of its width, and for etcd's.
const drawing = `A cluster on this machine, in namespaces of its own:

    outside     %-*s a host without a route to the pods
       |
    underlay    %-*s the nodes' network; etcd: %s
       |-----------+-----------|
     node1       node2       node3       hosts: selvaged, CNI plugins
     |   |       |   |       |   |
    pod1 pod2   pod3 pod4   pod5 pod6    network namespaces of containers
     \_________________________/
             the overlay                 what selvage makes: every pod reaches
                                         every other at its own address

`

// draw prints the drawing for the families of the overlay; none means IPv4.
func draw(w io.Writer, families []subnet.Family) {
	if len(families) == 0 {
		families = []subnet.Family{subnet.IPv4}
	}
	outside := [2]string{subnet.IPv4: "198.51.100.2", subnet.IPv6: "fd00:198::2"}
	underlay := [2]string{subnet.IPv4: "172.31.0.0/24", subnet.IPv6: "fd00:31::/64"}
	etcd := [2]string{subnet.IPv4: "172.31.0.1", subnet.IPv6: "fd00:31::1"}
	var outsides, underlays []string
	for _, f := range families {
		outsides, underlays = append(outsides, outside[f]), append(underlays, underlay[f])
	}
	u := strings.Join(underlays, " ")
	width := max(24, len(u)+2)
	fmt.Fprintf(w, drawing, width, strings.Join(outsides, " "), width, u, etcd[families[0]])
}

// podsPerNode is how many pods the demo adds to each node.
const podsPerNode = 2

// demo builds a lab, shows that it works, and takes it down. The exit code is 0 if every probe went well.
func demo(options lab.Options, pods int) int {
	ctx, stop := signals()
	defer stop()
	err := show(ctx, os.Stdout, options, pods)
	switch {
	case ctx.Err() != nil:
		return interrupted
	case err != nil:
		return fail(err)
	}
	return 0
}

// show is the demo. It fails if a probe does, or a fault is not repaired.
func show(ctx context.Context, w io.Writer, options lab.Options, pods int) error {
	start := time.Now()
	if options.Nodes == lab.DefaultNodes && options.Segments == 1 && pods == podsPerNode {
		draw(w, options.Families)
	} else {
		fmt.Fprintf(w, "A cluster of %d nodes on this machine, in namespaces of its own.\n\n", options.Nodes)
	}
	l, err := lab.New(ctx, options)
	if err != nil {
		return err
	}
	// A signal needs no Close: with the sandbox goes all that is in it.
	leases, err := l.Store().Leases(ctx)
	if err != nil {
		return err
	}
	how := "has claimed a subnet in etcd"
	if l.Kube() != nil {
		how = "has announced the podCIDR of its Node to the API server"
	}
	fmt.Fprintf(w, "Leases: each node %s (ready after %s)\n\n", how, since(start))
	printNodes(w, l, leases)

	if err := addPods(ctx, l, pods); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nPods: the CNI plugins gave each an address of its node's subnet\n\n")
	printPods(w, l)

	ok := showProbes(ctx, w, l)
	if ctx.Err() != nil {
		return ctx.Err()
	}

	first := l.Nodes()[0]
	fmt.Fprintf(w, "\nHow: what selvaged keeps in the kernel of %s\n\n", first.Name())
	entries, err := l.Explain(ctx, first)
	if err != nil {
		return err
	}
	printEntries(w, entries)

	repaired, err := showRepairs(ctx, w, l)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe end after %s. \"make lab\" builds the same with a prompt, to try more.\n", since(start))
	switch {
	case !repaired:
		return errRepair
	case !ok:
		return errProbe
	}
	return nil
}

// showProbes probes between everything, and tells whether all went well.
func showProbes(ctx context.Context, w io.Writer, l *lab.Lab) bool {
	var pods []*lab.Endpoint
	for _, p := range l.Pods() {
		pods = append(pods, p.Endpoint)
	}
	fmt.Fprintf(w, "\nPod to pod: round trip in ms over UDP, then 32 KiB over TCP\n"+
		"ok: the source address seen is the pod's own\n\n")
	ok := printMatrices(w, l.Families(), pods, func(f subnet.Family) [][]lab.Result { return l.MatrixFamily(ctx, f, pods) })

	fmt.Fprintf(w, "\nNode to pod, on every other node\n\n")
	var results []lab.Result
	for _, n := range l.Nodes() {
		for _, p := range l.Pods() {
			if p.Node != n {
				results = append(results, l.ProbeShared(ctx, n.Endpoint, p.Endpoint)...)
			}
		}
	}
	ok = printResults(w, results) && ok

	fmt.Fprintf(w, "\nPod to outside: masqueraded, the source seen is the node's address\n\n")
	results = nil
	for _, p := range pods {
		results = append(results, l.ProbeShared(ctx, p, l.Outside())...)
	}
	return printResults(w, results) && ok
}

func since(start time.Time) time.Duration { return time.Since(start).Round(10 * time.Millisecond) }
