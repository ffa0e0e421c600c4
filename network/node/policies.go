package node

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/feed"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/node/policyview"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/connection"
)

// Policies are what enforces network policies on this node.
type Policies struct {
	Engine *enforce.Engine
	// Feed hands over what policies are about to the engine, until ctx ends.
	Feed   func(ctx context.Context) error
	Report *feed.Report // of the feed
	// Socket is the path of the API's socket, to which the CNI plugin reports new pods; empty: it cannot.
	Socket string

	changed chan struct{} // size one: the engine's state has changed
	decided func()        // called after a change of what the engine's tables decide; set before the engine runs
}

// PolicyScope returns the scope of the tables of network policies. They are made before the network config, and so the
// VNI, is known.
func PolicyScope(storePrefix string) network.Scope { return network.NewScope(storePrefix, 0) }

// NewPolicies makes an engine. It fills in Changed and Decided of the options.
func NewPolicies(o enforce.Options) (*Policies, error) {
	p := &Policies{Report: &feed.Report{}, changed: make(chan struct{}, 1), decided: func() {}}
	o.Changed = func() { notify(p.changed) }
	o.Decided = func() { p.decided() }
	var err error
	p.Engine, err = enforce.New(o)
	return p, err
}

// changes has a value after the engine's state has changed.
func (p *Policies) changes() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.changed
}

// policies is what the loop knows of them. It belongs to the loop's goroutine, but for the atomic fields.
type policies struct {
	state network.State // in the tables
	// stale: the settings for bridged packets may have changed. absent: they do not exist. ipvs: there are services of
	// IPVS.
	stale, absent, ipvs atomic.Bool
	// left is why tables of an earlier run are still in force although this run enforces no policies; nil: none are.
	left     atomic.Pointer[problem]
	problems policyProblems
}

// policiesOwner owns what policies need in the tables.
func policiesOwner() network.Owner { return network.Owner{Name: "policies", Age: -1} }

// removePolicies removes the tables that an earlier run has left. It ends when there are none.
func (n *node) removePolicies(ctx context.Context) {
	for began := time.Now(); ctx.Err() == nil; sleep(ctx, waitAfterFailure) {
		removed, err := enforce.Remove(PolicyScope(n.StorePrefix).Tag(), false)
		if len(removed) > 0 {
			n.Log.WithFields(logrus.Fields{"tables": removed, "because": n.PoliciesOff}).
				Warn("network policies of an earlier run are not enforced any more")
		}
		if err == nil {
			n.enforced.left.Store(nil)
			notify(n.kernelChanged) // for the state
			return
		}
		if n.enforced.left.Swap(&problem{err: err, since: began}) == nil {
			n.Log.WithError(err).Error("cannot remove the network policy rules of an earlier run; retrying")
			notify(n.kernelChanged)
		}
	}
}

// runPolicies runs the engine and the feed until ctx ends.
func (n *node) runPolicies(ctx context.Context) {
	if n.Policies == nil {
		n.background.Go(func() { n.removePolicies(ctx) })
		return
	}
	n.background.Go(func() {
		if err := n.Policies.Engine.Run(ctx); err != nil && ctx.Err() == nil {
			n.Log.WithError(err).Error("network policies are not kept any more: restart selvaged")
		}
	})
	n.background.Go(func() {
		if err := n.Policies.Feed(ctx); err != nil && ctx.Err() == nil {
			n.Log.WithError(err).Error("network policies are not followed any more: restart selvaged")
		}
	})
	n.background.Go(func() { n.watchBypasses(ctx) })
}

// followPolicies brings into the tables what the policies in force need.
func (n *node) followPolicies() {
	if n.Policies == nil {
		return
	}
	var next network.State
	if n.Policies.Engine.Enforcing() && !n.enforced.absent.Load() {
		for _, path := range enforce.BridgedPackets() {
			next.Sysctls = append(next.Sysctls, network.Item[string, network.Sysctl]{Key: path, Value: "1"})
		}
	}
	stale := n.enforced.stale.Swap(false)
	if !slices.Equal(next.Sysctls, n.enforced.state.Sysctls) {
		n.tables.Replace(policiesOwner(), n.enforced.state, next)
		n.enforced.state, stale = next, true
		n.Policies.Engine.Bypassed() // they may be off, and they may have been while no daemon ran
	}
	if stale {
		n.kernel.ReadSettings()
	}
}

// reportAttachments tells the engine which pods have which addresses, by the CNI plugin's records.
func (n *node) reportAttachments() {
	if n.Policies == nil || !n.ownSide.known {
		return
	}
	var list []enforce.Attachment
	for _, p := range n.ownSide.pods {
		if p.Identity.Name != "" {
			list = append(list, enforce.Attachment(api.AttachmentOf(p)))
		}
	}
	n.Policies.Engine.SetAttachments(list)
}

// policySocket is where the CNI plugin reports new pods; empty: nowhere.
func (n *node) policySocket() string {
	if n.Policies == nil {
		return ""
	}
	return n.Policies.Socket
}

// Attacher passes the CNI plugin's reports on to an engine.
type Attacher struct{ Engine *enforce.Engine }

// Attach implements api.Attacher.
func (a Attacher) Attach(ctx context.Context, at api.Attachment) error {
	return a.Engine.Attach(ctx, enforce.Attachment(at))
}

// Isolate implements api.Attacher.
func (a Attacher) Isolate(at api.Attachment) error { return a.Engine.Isolate(enforce.Attachment(at)) }

// Detach implements api.Attacher.
func (a Attacher) Detach(at api.Attachment) { a.Engine.Detach(enforce.Attachment(at)) }

// policyAnswers answers what is asked about policies over the socket. It implements api.Policies.
type policyAnswers struct {
	engine *enforce.Engine
	node   string
}

// Answers returns what answers questions about the policies over the socket of the API.
func (p *Policies) Answers(node string) api.Policies { return policyAnswers{p.Engine, node} }

// Drops implements [exchange.Source].
func (n *node) Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error {
	if n.Policies == nil {
		return status.ErrNoPolicies
	}
	return n.Policies.Answers(n.NodeName).Drops(ctx, follow, yield)
}

// world calls f with what is known of the cluster. The engine waits for the end of f.
func (a policyAnswers) world(f func(connection.World)) {
	a.engine.View(func(c *policy.Compiler) {
		f(connection.World{Source: c, Pods: c.AllPods, Policies: c.AllPolicies})
	})
}

func (a policyAnswers) Policies(context.Context) (p status.Policies, err error) {
	p.Enforced = true
	a.world(func(w connection.World) { p.Policies = policyview.List(w, a.node) })
	return p, nil
}

func (a policyAnswers) PolicyVerdict(_ context.Context, q status.PolicyQuery) (v []status.PolicyVerdict, err error) {
	a.world(func(w connection.World) { v, err = policyview.Answer(w, q) })
	for i := range v {
		if err == nil {
			v[i].Kernel, err = a.inKernel(v[i])
		}
	}
	return v, err
}

// inKernel returns what nf_tables has about the ends of a connection that are pods of this node.
func (a policyAnswers) inKernel(v status.PolicyVerdict) (all []status.PolicyKernel, err error) {
	ends := [...]status.PolicyEnd{policy.Egress: v.Source, policy.Ingress: v.Destination}
	for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
		if end := ends[dir]; end.Pod != "" && end.Node == a.node {
			k, err := a.engine.InKernel(dir, end.Address)
			if err != nil {
				return nil, fmt.Errorf("read what the kernel has about %s: %w", end.Pod, err)
			}
			all = append(all, status.PolicyKernel{
				Direction: dir.String(), Address: end.Address, Table: k.Table, Chain: k.Chain,
				InForce: k.InForce, Bypassed: k.Bypassed, Closed: k.Closed, Denied: k.Denied,
			})
		}
	}
	return all, nil
}

func (a policyAnswers) Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error {
	return a.engine.Drops(ctx, follow, func(d enforce.Drop) error { return yield(dropStatus(d)) })
}

// dropStatus returns a denied packet for the status.
func dropStatus(d enforce.Drop) status.Drop {
	end := func(e enforce.End) status.PolicyEnd {
		return status.PolicyEnd{Address: e.Addr(), Pod: e.Pod, Node: e.Node}
	}
	s := status.Drop{
		At: d.At, Direction: d.Direction.String(), Cause: string(d.Reason), Policy: d.Policy, Isolated: d.Isolated,
		Protocol: protocolName(d.Protocol), Source: end(d.Source), SourcePort: d.Source.Port(),
		Destination: end(d.Destination), DestinationPort: d.Destination.Port(), Missed: d.Missed,
	}
	if d.Policy != "" {
		s.Rule = &d.Rule
	}
	return s
}

// protocolName returns the name of a protocol in the status.
func protocolName(p policy.Protocol) string {
	switch p {
	case connection.ICMP:
		return "ICMP"
	case policy.ICMPv6:
		return "ICMPv6"
	}
	return p.String()
}
