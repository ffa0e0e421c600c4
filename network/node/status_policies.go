package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/feed"
	"github.com/selvage-net/selvage/network/node/status"
)

// policyStatus is the state of the enforcement; nil: the node enforces none.
func (n *node) policyStatus() *status.Enforcement {
	if n.Policies == nil {
		return nil
	}
	s := n.Policies.Engine.Status()
	e := &status.Enforcement{
		Synced: s.Synced, Enforcing: s.Enforcing, NeedsPeers: s.NeedsPeers, Pods: s.Pods,
		Sets: s.Sets, Elements: s.Elements, Chains: s.Chains, Waiting: s.Waiting, Closed: s.Closed, Repairs: s.Repairs,
	}
	for _, d := range n.Policies.Engine.DropCounts() {
		e.Drops = append(e.Drops, status.PolicyDrops{
			Namespace: d.Namespace, Direction: d.Direction.String(), Cause: string(d.Reason), Policy: d.Policy,
			Count: d.Count,
		})
	}
	if n.Policies.Report != nil {
		for _, x := range n.Policies.Report.State().Sources {
			e.Sources = append(e.Sources, status.PolicySource{
				Name: string(x.Source), Complete: x.Complete, Objects: x.Objects, Since: x.Since,
			})
		}
	}
	return e
}

// topicPolicies is the topic of problems with network policies.
const topicPolicies = "policies"

// policyTroubles returns what keeps policies from being enforced now, or denied packets from being reported.
func (n *node) policyTroubles() policyTroubles {
	found := policyTroubles{}
	if n.Policies == nil {
		found.left(n.enforced.left.Load())
		return found
	}
	state := n.Policies.Engine.Status()
	found.state(state, n.enforced.absent.Load())
	found.services(state.Enforcing && n.enforced.ipvs.Load())
	if n.Policies.Report != nil {
		found.sources(n.Policies.Report.State().Sources)
	}
	return found
}

// policyTroubles are problems by reason. Since is zero where it is not known.
type policyTroubles map[status.Reason]status.Problem

func (t policyTroubles) add(reason status.Reason, p status.Problem, format string, args ...any) {
	p.Text = status.Text(fmt.Sprintf(format, args...))
	t[reason] = p
}

// left adds why tables of an earlier run are still in force.
func (t policyTroubles) left(p *problem) {
	if p != nil {
		t.add(status.PolicyNotRemoved, status.Problem{Since: p.since}, "network policies are not enforced any more, "+
			"but the rules of an earlier run cannot be removed, and deny packets: %v", p.err)
	}
}

// state adds what is wrong with the engine. bridgeAbsent: the settings for bridged packets do not exist.
func (t policyTroubles) state(s enforce.State, bridgeAbsent bool) {
	for _, f := range s.Failures {
		t.add(status.PolicyNotApplied, status.Problem{}, "cannot apply the table of %s in nf_tables: %v", f.Part, f.Err)
	}
	if s.Enforcing && bridgeAbsent {
		t.add(status.PolicyBridge, status.Problem{}, "packets between two pods of this node bypass network policies, "+
			"because the kernel module %s is not loaded", bridgeModule)
	}
	if len(s.Closed) > 0 {
		t.add(status.PolicyPodClosed, status.Problem{}, "pods are denied all connections until their rules are in the "+
			"kernel: %s", joinAddresses(s.Closed))
	}
	if s.Waiting > 0 && len(s.Closed) == 0 {
		t.add(status.PolicyPodWaiting, status.Problem{Warning: true}, "%d pods are not judged: they are not known "+
			"yet, or their rules are not in the kernel", s.Waiting)
	}
	if s.DropsUnread != nil {
		t.add(status.PolicyDropsUnread, status.Problem{Warning: true}, "denied packets are not reported: %v",
			s.DropsUnread)
	}
}

// services adds that connections to Services bypass the policies in force.
func (t policyTroubles) services(bypass bool) {
	if bypass {
		t.add(status.PolicyIPVS, status.Problem{}, "egress of this node's pods to Services bypasses network policies, "+
			"because IPVS sends their packets past the forward hook")
	}
}

// sources adds what is not followed.
func (t policyTroubles) sources(all []feed.SourceState) {
	for _, x := range all {
		if !x.Since.IsZero() { // until the first list is complete, new pods are closed
			t.add(status.PolicySourceLost, status.Problem{Since: x.Since, Warning: x.Complete},
				"changes of %s are not seen: %v", x.Source, x.Problem.Err)
		}
	}
}

// policyProblems knows since when there are problems.
type policyProblems map[status.Reason]time.Time

// list returns the problems that have lasted for a while, by reason. It forgets those that are over.
func (known policyProblems) list(found policyTroubles, now time.Time) (all []status.Problem) {
	for reason := range known {
		if _, is := found[reason]; !is {
			delete(known, reason)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(found)) {
		p := found[reason]
		since, is := known[reason]
		if !is {
			since = now
			known[reason] = since
		}
		if !p.Since.IsZero() {
			since = p.Since
		}
		if now.Sub(since) > pendingFor {
			p.Topic, p.Code, p.Since = topicPolicies, reason, since
			all = append(all, p)
		}
	}
	return all
}

// joinAddresses lists the first few addresses.
func joinAddresses(list []netip.Addr) string {
	const few = 3
	var names []string
	for _, a := range list[:min(len(list), few)] {
		names = append(names, a.String())
	}
	text := strings.Join(names, ", ")
	if len(list) > few {
		text += fmt.Sprintf(" and %d more", len(list)-few)
	}
	return text
}
