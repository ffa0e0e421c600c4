package k8slab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Step is one thing that is done to a cluster, and what has to hold then. Steps are in an order and build on each other.
type Step struct {
	Name string
	// run returns what it found out, as lines for people.
	run func(context.Context, *suite) ([]string, error)
	// repeatable: it leaves the cluster as it was.
	repeatable bool
}

// Steps are all there are.
func Steps() []Step {
	return []Step{
		{"without a network no node is ready", notReady, false},
		{"the DaemonSet makes nodes ready", daemonSet, false},
		{"every value of the chart, for the apiserver", rendered, false},
		{"pods have addresses of their nodes' subnets", deploy, false},
		{"pods reach each other by their addresses", reach, false},
		{"services by kube-proxy with iptables", services("iptables"), false},
		{"FORWARD drops, kube-proxy with iptables", dropped, false},
		{"services by kube-proxy with nftables", services("nftables"), false},
		{"FORWARD drops, kube-proxy with nftables", dropped, false},
		{"streams between the nodes' pods", stream, false},
		{"a rolling update of the DaemonSet", watched(rollingUpdate), true},
		{"a daemon's pod deleted", watched(daemonDeleted), true},
		{"the kubelet restarted", watched(kubeletRestarted), true},
		{"containerd killed and started again", watched(containerdKilled), true},
		{"EnableNFTables: true", watched(nftablesWished), true},
		{"EnableNFTables: false, without iptables in the image", watched(iptablesWished), true},
		{"EnableNFTables: false, iptables in the image", watched(iptablesInImage), false},
		{"FORWARD drops, iptables in the image", undoneByItself, false},
		{"a node leaves", leaves, false},
		{"all pods deleted", deleted, false},
	}
}

// Repeat has those steps that leave the cluster as it was gone through that many times, one after the other.
func Repeat(steps []Step, times int) []Step {
	var list, again []Step
	for i, s := range steps {
		if s.repeatable {
			again = append(again, s)
		}
		if last := i+1 == len(steps) || !steps[i+1].repeatable; s.repeatable && last {
			for range times {
				list = append(list, again...)
			}
			again = nil
		}
		if !s.repeatable {
			list = append(list, s)
		}
	}
	return list
}

// UpTo leaves out what comes after the first step with a text in its name.
func UpTo(steps []Step, text string) ([]Step, error) {
	for i, s := range steps {
		if strings.Contains(s.Name, text) {
			return steps[:i+1], nil
		}
	}
	return nil, fmt.Errorf("no step has %q in its name", text)
}

// suite is what steps share.
type suite struct {
	*Cluster
	pods  []*Pod // of the Deployment
	alone *Pod
}

// Run goes through the steps until one fails. hold, if it is not nil, is called in the end, with the cluster still up.
func Run(ctx context.Context, o Options, steps []Step, w io.Writer, hold func(context.Context, *Cluster) error) (err error) {
	began := time.Now()
	c, err := New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	line := func(name string, took time.Duration, verdict string) {
		fmt.Fprintf(w, "%-55s %6.1fs  %s\n", name, took.Seconds(), verdict)
	}
	line(fmt.Sprintf("control plane and %d nodes started", len(c.nodes)), time.Since(began), "ok")
	s := &suite{Cluster: c}
	for _, step := range steps {
		start := time.Now()
		found, err := step.run(ctx, s)
		err = errors.Join(err, c.ended())
		verdict := "ok"
		if err != nil {
			verdict = "FAIL"
		}
		line(step.Name, time.Since(start), verdict)
		for _, f := range found {
			fmt.Fprintf(w, "    %s\n", f)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted at: %s", step.Name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w%s", step.Name, err, c.picture(ctx))
		}
	}
	line(fmt.Sprintf("%d steps", len(steps)), time.Since(began), "ok")
	if hold != nil {
		return hold(ctx, c)
	}
	return nil
}
