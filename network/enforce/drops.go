package enforce

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nflog"
	"github.com/selvage-net/selvage/network/policy"
)

// Drop is a packet that was denied. Its rule bounds how many a second are logged.
type Drop struct {
	At time.Time
	ruleset.Denial
	// Isolated are the NetworkPolicies that isolate the pod, if that is the reason. They are those of the time at which
	// the packet was read.
	Isolated            []string
	Protocol            policy.Protocol
	Source, Destination End
	// Missed is how many drops before this one are not known, at least: the engine or the caller was too slow.
	Missed uint64
}

// End is an end of a connection.
type End struct {
	netip.AddrPort        // the port is 0 if the protocol has none
	Pod            string // namespace/name; empty: the address is not a pod's
	Node           string // of the pod
}

// pod returns the namespace and the name of the pod.
func (e End) pod() (namespace, name string) {
	namespace, name, _ = strings.Cut(e.Pod, "/")
	return namespace, name
}

// Drops calls yield for each of the last drops, the oldest first; with follow also for those to come, until ctx ends.
// It returns the error of yield, or nil.
func (e *Engine) Drops(ctx context.Context, follow bool, yield func(Drop) error) error {
	return e.dropped.Each(ctx, follow, func(d Drop, missed uint64) error {
		d.Missed = missed
		return yield(d)
	})
}

// readDropsPause is how soon it is tried again to receive logged packets.
const readDropsPause = 10 * time.Second

// readDrops receives logged packets until ctx ends.
func (e *Engine) readDrops(ctx context.Context) {
	for logged := false; ctx.Err() == nil; {
		err := nflog.Read(ctx, e.options.LogGroup, func() {
			logged = false
			e.setReading(true, nil)
		}, e.dropped.Miss, e.drop)
		e.setReading(false, err)
		if err != nil && !logged {
			logged = true
			e.options.Log.WithError(err).Warn("cannot read the packets that network policies deny; retrying")
		}
		select {
		case <-ctx.Done():
		case <-time.After(readDropsPause):
		}
	}
}

// setReading notes whether what the rules log is received, and why not.
func (e *Engine) setReading(yes bool, why error) {
	e.mu.Lock()
	e.reading, e.dropsUnread = yes, why
	e.mu.Unlock()
	notify(e.wake) // for the state
}

// drop takes in a logged packet.
func (e *Engine) drop(p nflog.Packet) {
	why, ours := ruleset.ParsePrefix(p.Prefix)
	if !ours {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x := Drop{
		At: time.Now(), Denial: why, Protocol: policy.Protocol(p.Protocol), Source: e.end(p.Source),
		Destination: e.end(p.Destination),
	}
	if why.Reason == ruleset.Isolated {
		judged := policy.Packet{Source: p.Source.Addr(), Destination: p.Destination.Addr(), Protocol: x.Protocol,
			Port: p.Destination.Port()}
		x.Isolated = policy.Judge(e.compiler, e.options.Node, judged)[why.Direction].Isolated
	}
	e.countDrop(x)
	e.dropped.Add(x)
}

// end returns an end of a connection, with the pod that has its address now.
func (e *Engine) end(a netip.AddrPort) End {
	end := End{AddrPort: a}
	for p := range e.compiler.PodsAt(a.Addr()) { // the first is the owner
		end.Pod, end.Node = p.Namespace+"/"+p.Name, p.Node
		break
	}
	return end
}
