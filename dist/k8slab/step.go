package k8slab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// Step is one thing that is done to a cluster, and what has to hold then. Steps are in an order and build on each other.
type Step struct {
	Name string
	// run returns what it found out, as lines for people.
	run func(context.Context, *suite) ([]string, error)
	// repeatable: it leaves the cluster as it was.
	repeatable bool
	// only is the store that the step is for; empty: all of them.
	only subnet.StoreKind
}

// Steps are all there are for a store.
func Steps(store subnet.StoreKind) (steps []Step) {
	for _, s := range allSteps() {
		if s.only == "" || s.only == store {
			steps = append(steps, s)
		}
	}
	return steps
}

// Names of steps that others are put beside, or that an installation has.
const (
	nameNotReady     = "without a network no node is ready"
	nameDaemonSet    = "the DaemonSet makes nodes ready"
	nameDeploy       = "pods have addresses of their nodes' subnets"
	nameReach        = "pods reach each other by their addresses"
	nameConnectivity = "connectivity-test, with a rolling restart"
	nameDeleted      = "all pods deleted"
	nameRemoved      = "selvage removed"

	nameStreams    = "streams between the nodes' pods"
	nameOtherRange = "a Node registered with another podCIDR"
	nameLeaves     = "a node leaves"
)

func allSteps() []Step {
	const kubernetes = subnet.StoreKubernetes
	return []Step{
		{Name: nameNotReady, run: notReady},
		{Name: nameDaemonSet, run: daemonSet},
		{Name: "what a daemon's token may change", run: restricted, only: kubernetes},
		{Name: "every value of the chart, for the apiserver", run: rendered},
		{Name: nameDeploy, run: deploy},
		{Name: nameReach, run: reach},
		{Name: "services by kube-proxy with iptables", run: services("iptables")},
		{Name: "FORWARD drops, kube-proxy with iptables", run: dropped},
		{Name: "services by kube-proxy with nftables", run: services("nftables")},
		{Name: "FORWARD drops, kube-proxy with nftables", run: dropped},
		{Name: "kubectl selvage", run: plugin},
		{Name: "the page of selvaged mesh", run: meshPage},
		{Name: nameConnectivity, run: withDNS(connectivityTest)},
		{Name: "connectivity-test, where a node loses large packets", run: connectivityBroken},
		{Name: nameStreams, run: stream},
		{Name: "a rolling update of the DaemonSet", run: watched(rollingUpdate), repeatable: true},
		{Name: "a daemon's pod deleted", run: watched(daemonDeleted), repeatable: true},
		{Name: "the kubelet restarted", run: watched(kubeletRestarted), repeatable: true},
		{Name: "containerd killed and started again", run: watched(containerdKilled), repeatable: true},
		{Name: "network policies switched off, and to auto", run: watched(policiesOn), repeatable: true,
			only: kubernetes},
		{Name: "a default deny under streams", run: watched(policiesApplied), repeatable: true, only: kubernetes},
		{Name: "a rolling update under policies", run: watched(whileDenied(rollingUpdate)), repeatable: true,
			only: kubernetes},
		{Name: "the daemons killed under policies", run: watched(whileDenied(daemonsKilled)), repeatable: true,
			only: kubernetes},
		{Name: "the policies deleted", run: watched(policiesDeleted), repeatable: true, only: kubernetes},
		{Name: "network policies switched off, and on again", run: watched(policiesOff), repeatable: true,
			only: kubernetes},
		{Name: "EnableNFTables: true", run: watched(nftablesWished), repeatable: true},
		{Name: "EnableNFTables: false, without iptables in the image", run: watched(iptablesWished), repeatable: true},
		{Name: "the API server killed for a minute", run: watched(serverKilled), only: kubernetes},
		{Name: "a Node deleted and registered again", run: watched(registeredAgain), only: kubernetes},
		{Name: "the API server's etcd restored from a backup", run: watched(restored()), only: kubernetes},
		{Name: "restored again, to a later revision", run: watched(restored(bumped...)), only: kubernetes},
		{Name: "the key of service accounts' tokens replaced", run: watched(tokensRotated), only: kubernetes},
		{Name: "EnableNFTables: false, iptables in the image", run: watched(iptablesInImage)},
		{Name: "FORWARD drops, iptables in the image", run: undoneByItself},
		{Name: nameOtherRange, run: otherPodCIDR, only: kubernetes},
		{Name: nameLeaves, run: leaves},
		{Name: nameDeleted, run: deleted},
		{Name: nameRemoved, run: removed},
	}
}

// Installation leaves only the steps of an installation that is tried and removed again.
func Installation(steps []Step) []Step {
	names := []string{
		nameNotReady, nameDaemonSet, nameDeploy, nameReach, nameConnectivity, nameDeleted, nameRemoved,
	}
	return slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return !slices.Contains(names, s.Name) })
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

// Without leaves out the steps with one of the texts in their names. What others build on cannot be left out.
func Without(steps []Step, texts []string) []Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s Step) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(s.Name, text) })
	})
}

// suite is what steps share.
type suite struct {
	*Cluster
	pods  []*Pod // of the Deployment
	alone *Pod
	to    map[*Pod]*Node // where the pod that each stream leads to is
	flows map[*Pod][]*flow
	// strangers are pods that network policies allow nothing, see policiesOn.
	strangers []*Pod
	moved     []*Node            // in a migration: the nodes that run selvage
	before    map[*Node][]string // what was on the nodes before selvage came, see nodeState
}

// flow is one of a pod's streams.
type flow struct {
	text  string       // from where, to where
	total agent.Losses // since its start, as far as it was asked
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
	s := &suite{Cluster: c, to: map[*Pod]*Node{}, flows: map[*Pod][]*flow{}}
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
