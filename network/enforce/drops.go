package enforce

import (
	"context"
	"net/netip"
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

// keptDrops is how many drops are kept for who asks later.
const keptDrops = 256

// dropped are the last drops. Each has a number, from 0 on, and the one with number n is at n % keptDrops.
type dropped struct {
	list  []Drop
	next  uint64        // the number of the next drop
	lost  uint64        // before the next one
	added chan struct{} // closed when one is added
	read  bool          // what the rules log is received
}

// Drops calls yield for each of the last drops, the oldest first; with follow also for those to come, until ctx ends.
// It returns the error of yield, or nil.
func (e *Engine) Drops(ctx context.Context, follow bool, yield func(Drop) error) error {
	for number := uint64(0); ; {
		e.mu.Lock()
		d := &e.dropped
		var news []Drop
		missed := uint64(0)
		if oldest := d.next - uint64(len(d.list)); number < oldest {
			if number > 0 { // else they are only old
				missed = oldest - number
			}
			number = oldest
		}
		for ; number < d.next; number++ {
			news = append(news, d.list[number%keptDrops])
		}
		added := d.added
		e.mu.Unlock()
		for i, drop := range news {
			if i == 0 {
				drop.Missed += missed
			}
			if err := yield(drop); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-added:
		}
	}
}

// readDrops receives logged packets until ctx ends.
func (e *Engine) readDrops(ctx context.Context) {
	const pause = 30 * time.Second
	for logged := false; ctx.Err() == nil; {
		err := nflog.Read(ctx, e.options.LogGroup, func() {
			logged = false
			e.setReading(true)
		}, func() {
			e.mu.Lock()
			e.dropped.lost++
			e.mu.Unlock()
		}, e.drop)
		e.setReading(false)
		if err != nil && !logged {
			logged = true
			e.options.Log.WithError(err).Warn("cannot read the packets that network policies deny; retrying")
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// setReading notes whether what the rules log is received.
func (e *Engine) setReading(yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped.read = yes
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
		Destination: e.end(p.Destination), Missed: e.dropped.lost,
	}
	if why.Reason == ruleset.Isolated {
		judged := policy.Packet{Source: p.Source.Addr(), Destination: p.Destination.Addr(), Protocol: x.Protocol,
			Port: p.Destination.Port()}
		x.Isolated = policy.Judge(e.compiler, e.options.Node, judged)[why.Direction].Isolated
	}
	d := &e.dropped
	if len(d.list) < keptDrops {
		d.list = append(d.list, x)
	} else {
		d.list[d.next%keptDrops] = x
	}
	d.next++
	d.lost = 0
	close(d.added)
	d.added = make(chan struct{})
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
