package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

const (
	// changeLimit is what a change may take until the kernel has it, in milliseconds, at the median.
	changeLimit = 5
	// sameLimit is how many times as long it may take in the large cluster as in the small one. What a change costs is
	// to be the same in both; the half is for what a busy machine adds.
	sameLimit = 1.5
)

// policyLab makes a lab whose nodes enforce policies of a stand-in for the API server. Its pods are in one namespace.
// What is denied is answered, as kube-router does.
func (b *bench) policyLab(ctx context.Context, nodes int) (*lab.Lab, error) {
	return lab.New(ctx, lab.Options{
		Nodes: nodes, Store: subnet.StoreKubernetes, Families: ipv4(), Namespace: "default", IPTables: "nft",
		Bin:        b.Bin,
		Config:     lab.NetworkConfig(ipv4(), "", lab.NFTablesOn),
		DaemonArgs: []string{"--network-policy=on", "--policy-reject", "--peer-probe-interval=0"},
	})
}

// closeLab keeps the logs of a lab, if they are to be kept, and ends it.
func (b *bench) closeLab(l *lab.Lab) (err error) {
	for _, n := range l.Nodes() {
		err = errors.Join(err, b.keep(n.LogPath()))
	}
	return errors.Join(err, l.Close())
}

// awaitPolicies waits until a node's enforcement is in a state.
func awaitPolicies(ctx context.Context, n *lab.Node, what string, ok func(status.Enforcement) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := n.Status(ctx)
		if err == nil && s.Enforcement != nil && s.Enforcement.Synced && ok(*s.Enforcement) {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%s: %s: %w: the status is %+v, %v", n.Name(), what, ctx.Err(), s.Enforcement, err)
		}
	}
}

// policyChange is a kind of change, and how it shows.
type policyChange struct {
	name, what string
	make       func(context.Context) error
	with       []byte   // is in a notification of the kernel about it
	types      []uint16 // of the notification
	of         string   // is in the event of a watch about it
}

// policyChanges are those that are made over and over, one after the other: what one adds a later one removes.
func (c policyCluster) policyChanges(pods, policies int) []policyChange {
	period := 5 * c.namespaces
	// of the first Deployment of the first namespace
	next := func(n int) int { return (n + period - 1) / period * period }
	own, other, policy := next(pods), next(pods)+1, next(policies)
	chain := []byte("ingress/" + c.namespace(policy) + "/" + policyName(policy)) // also in the comments of its rules
	there, gone := []uint16{unix.NFT_MSG_NEWSETELEM}, []uint16{unix.NFT_MSG_DELSETELEM}
	rule, port := []uint16{unix.NFT_MSG_NEWRULE}, 443
	return []policyChange{
		{"pod-added", "a pod of another node added",
			func(ctx context.Context) error { return c.add(ctx, other, "other1") },
			podAddress(other).AsSlice(), there, c.podName(other)},
		{"pod-removed", "a pod of another node removed",
			func(ctx context.Context) error { return c.removePod(ctx, other) },
			podAddress(other).AsSlice(), gone, c.podName(other)},
		{"own-pod-added", "a pod of the node added", func(ctx context.Context) error { return c.add(ctx, own, c.node) },
			podAddress(own).AsSlice(), there, c.podName(own)},
		{"own-pod-removed", "a pod of the node removed",
			func(ctx context.Context) error { return c.removePod(ctx, own) },
			podAddress(own).AsSlice(), gone, c.podName(own)},
		{"policy-added", "a policy added", func(ctx context.Context) error { return c.addPolicy(ctx, policy) },
			chain, rule, policyName(policy)},
		{"policy-changed", "a policy changed", func(ctx context.Context) error {
			port++
			return c.changePolicy(ctx, policy, port)
		}, chain, rule, policyName(policy)},
		{"policy-removed", "a policy removed", func(ctx context.Context) error { return c.removePolicy(ctx, policy) },
			chain, []uint16{unix.NFT_MSG_DELCHAIN}, policyName(policy)},
	}
}

// policyTimes measures how long a change takes from the API to the kernel, in a small cluster and in a large one.
func policyTimes(ctx context.Context, b *bench) error {
	first := map[string]float64{}
	for i, size := range b.policySizes() {
		took, heard, err := b.policyTimesOf(ctx, size)
		if err != nil {
			return fmt.Errorf("%d pods, %d policies: %w", size.pods, size.policies, err)
		}
		for _, c := range (policyCluster{namespaces: 1}).policyChanges(0, 0) {
			of := fmt.Sprintf("change=%s/pods=%d/policies=%d", c.name, size.pods, size.policies)
			words := fmt.Sprintf("%d pods, %d policies: %s, API to kernel, ", size.pods, size.policies, c.what)
			half := quantile(0.5, took[c.name])
			f := Figure{Name: "PolicyChange/" + of + "/p50", What: words + "p50", Unit: "ms", Value: half,
				Limit: atMost(changeLimit),
				Floor: &Reference{What: "a bare watch", Value: quantile(0.5, heard[c.name])}}
			b.report.add(f)
			b.report.add(Figure{Name: "PolicyChange/" + of + "/p99", What: words + "p99", Unit: "ms",
				Value: quantile(0.99, took[c.name]),
				Floor: &Reference{What: "a bare watch", Value: quantile(0.99, heard[c.name])}})
			if i == 0 {
				first[c.name] = half
				continue
			}
			b.report.add(Figure{Name: "PolicyChangeGrowth/" + of, What: words + "p50, of that in the small cluster",
				Unit: "×", Value: half / first[c.name],
				Limit: atMost(sameLimit), LimitIs: "the same, and half of it for noise"})
		}
	}
	b.report.note("A change is timed from before the request to the API, so that what the stand-in for the API " +
		"server takes counts, to the kernel's notification that the transaction is committed. The floor is the " +
		"same up to a bare watch, in the same process as the stand-in.")
	return nil
}

// policySize is how large a cluster is.
type policySize struct{ pods, policies int }

// policySizes are a small cluster and a large one, with a policy for each ten pods.
func (b *bench) policySizes() []policySize {
	small := max(localPods, b.PolicyPods/100)
	return []policySize{{small, max(1, small*b.Policies/b.PolicyPods)}, {b.PolicyPods, b.Policies}}
}

// policyTimesOf returns how long changes took, in milliseconds by their names, and how long until a bare watch received
// them.
func (b *bench) policyTimesOf(ctx context.Context, size policySize) (took, heard map[string][]float64, err error) {
	b.step("  changes among %d pods and %d policies", size.pods, size.policies)
	l, err := b.policyLab(ctx, 1)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, b.closeLab(l)) }()
	n := l.Nodes()[0]
	c, err := newPolicyCluster(ctx, l.Kube().Server().Admin(), n.Name(), size.pods)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(c.addPods(ctx, 0, size.pods), c.addPolicies(ctx, 0, size.policies)); err != nil {
		return nil, nil, err
	}
	if err := b.settlePolicies(ctx, n, size); err != nil {
		return nil, nil, err
	}
	var rules *ruleListener
	if err := n.Do(func() (err error) { rules, err = listenToRules(); return err }); err != nil {
		return nil, nil, err
	}
	stop := make(chan struct{})
	go rules.run(stop)
	defer func() { close(stop); <-rules.done }()
	events, end, err := watchPolicies(ctx, c.admin.URL, c.admin.Token)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	took, heard = map[string][]float64{}, map[string][]float64{}
	for range b.PolicyChanges {
		for _, x := range c.policyChanges(size.pods, size.policies) {
			kernel := rules.expect(x.with, x.types...)
			began := time.Now()
			if err := x.make(ctx); err != nil {
				return nil, nil, err
			}
			at, err := awaitTime(ctx, kernel, rules.missing)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", x.what, err)
			}
			took[x.name] = append(took[x.name], milliseconds(at.Sub(began)))
			for e := range events {
				if strings.Contains(e.text, x.of) {
					heard[x.name] = append(heard[x.name], milliseconds(e.at.Sub(began)))
					break
				}
			}
			if !pause(ctx, between) {
				return nil, nil, ctx.Err()
			}
		}
	}
	return took, heard, nil
}

// settlePolicies waits until a node enforces what the API has, and has nothing left of it to do.
func (b *bench) settlePolicies(ctx context.Context, n *lab.Node, size policySize) error {
	last, since := status.Enforcement{}, time.Now()
	return awaitPolicies(ctx, n, "it enforces the policies", func(e status.Enforcement) bool {
		if e.Chains != last.Chains || e.Elements != last.Elements {
			since = time.Now()
		}
		last = e
		own := min(size.pods, localPods)
		for _, s := range e.Sources {
			if s.Name == "peers" && s.Objects != size.pods-own {
				return false
			}
		}
		return (e.Enforcing || size.policies*own == 0) && e.Pods == own && time.Since(since) > settle
	})
}

// awaitTime waits for a time. what says what is missing.
func awaitTime(ctx context.Context, c <-chan time.Time, what func() error) (time.Time, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t := <-c:
		return t, nil
	case <-timer.C:
		return time.Time{}, fmt.Errorf("after %s: %w", patience, what())
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}
