package enforce

import (
	"net/netip"
	"slices"
)

// State is the state of an [Engine].
type State struct {
	Synced     bool // the lists of all objects are complete
	Enforcing  bool // a policy selects a pod of this node
	NeedsPeers bool // a policy that does names other pods
	Pods       int  // of this node, in the API
	// Sets, Elements and Chains are those of the policies' table.
	Sets, Elements, Chains int
	Waiting                int          // attachments whose rules are not in the kernel, and are not ignored
	Closed                 []netip.Addr // that are denied everything until their rules are in the kernel, sorted
	Repairs                uint64       // passes that repaired external changes
	Cut                    uint64       // connections that were cut because policies deny them
	Failures               []Failure
	// DropsUnread is why what the rules log is not received, so that [Engine.Drops] misses denied packets; nil: it is,
	// or nothing is logged. It is retried.
	DropsUnread error
}

// Part is a code for a table.
type Part string

// The tables.
const (
	Policies Part = "policies"
	Sources  Part = "sources"
	Closed   Part = "closed"
)

// Failure is why a table is not in sync. It is retried.
type Failure struct {
	Part Part
	Err  error
}

// equal reports whether two states are the same for who looks at them: not by what is only counted.
func (s State) equal(o State) bool {
	failing := func(a, b Failure) bool { return a.Part == b.Part && a.Err.Error() == b.Err.Error() }
	return (s.DropsUnread == nil) == (o.DropsUnread == nil) &&
		s.Synced == o.Synced && s.Enforcing == o.Enforcing && s.NeedsPeers == o.NeedsPeers &&
		slices.Equal(s.Closed, o.Closed) && slices.EqualFunc(s.Failures, o.Failures, failing)
}

// newState returns the state after a pass.
func (p *pass) newState(d desired, r result) State {
	s := State{
		Synced: p.synced, Enforcing: d.enforcing, NeedsPeers: p.needs, Pods: len(p.local), Repairs: p.state.Repairs,
		Closed: r.closed, Cut: p.cutCount, DropsUnread: p.dropsUnread,
	}
	s.Sets, s.Elements, s.Chains = p.rules.Size()
	for _, x := range p.attached {
		if !x.inSync {
			s.Waiting++
		}
	}
	for _, f := range []Failure{{Policies, r.policies}, {Sources, r.sources}, {Closed, r.closing}} {
		if f.Err != nil {
			s.Failures = append(s.Failures, f)
		}
	}
	return s
}

// Status returns the state after the last pass.
func (e *Engine) Status() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

// Enforcing reports whether a policy selects a pod of this node. Then packets between the ports of a bridge have to
// pass the forward hook: net.bridge.bridge-nf-call-iptables and -ip6tables.
func (e *Engine) Enforcing() bool { return e.Status().Enforcing }
