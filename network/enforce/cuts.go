package enforce

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/conntrack"
	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// A connection that policies deny by now is cut in two steps. First the answers on it are denied by their addresses and
// ports (ruleset.Ruleset.Cut), then its entry is deleted. From then on its packets are judged like those of a new one.
// Without the first step, the next answer would make a new entry in the other direction, which the policies of the
// server may allow, and the packets that are denied would pass as answers on that one. So a server that sends a lot
// would not notice anything.
//
// The flows stay denied for cutFor, or until policies allow the connection again.

const (
	cutFor = 3 * time.Hour // more than the time after which TCP asks whether the other end is there: 2 hours
	// maxCuts bounds the flows that stay denied; the oldest are forgotten. All are judged again after each change.
	maxCuts = 1024
	// cutShare is how many times the CPU time that a walk over all connections took the pause after it is.
	cutShare = 10
)

// concern notes addresses whose connections are to be judged again, and wakes the cutter. The mutex is held.
func (e *Engine) concern(addresses []netip.Addr) {
	if e.options.KeepConnections || len(addresses) == 0 {
		return
	}
	for _, a := range addresses {
		e.concerned[a] = true
	}
}

// judgeAll has the connections of all pods judged again that policies select: while another process had changed the
// policies' table, connections can have begun that are denied, and a repair of the table does not end them.
func (p *pass) judgeAll() {
	p.mu.Lock()
	p.concern(p.rules.Selected())
	p.mu.Unlock()
	p.Bypassed()
}

// cut cuts connections until ctx ends.
func (p *pass) cut(ctx context.Context) {
	runtime.LockOSThread() // for cpuTime
	defer runtime.UnlockOSThread()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.cutter:
		case <-p.nextLook():
			p.look()
		}
		number, walk, err := p.cutNow(ctx)
		pause, hurry := (cutShare-1)*walk, p.hurry
		if err != nil {
			pause, hurry = max(pause, retryBackoff.Max), nil
		}
		if err != nil && !failing {
			p.options.Log.WithError(err).Error("cannot cut connections that network policies deny; retrying")
		}
		failing = err != nil
		if number > 0 {
			p.options.Log.WithField("connections", number).Info("cut connections that network policies deny now")
		}
		// After a repair, connections pass that began before it: the pause is short then, but never left out. So it is
		// for the few looks after it.
		select {
		case <-ctx.Done():
			return
		case <-time.After(walk):
		}
		select {
		case <-ctx.Done():
			return
		case <-hurry:
		case <-p.nextLook():
			p.look()
			notify(p.cutter)
		case <-time.After(pause):
		}
		if err != nil {
			notify(p.cutter)
		}
	}
}

// cpuTime returns how much CPU time the calling thread has used. What is waited for does not count, such as other
// programs on a busy node.
func cpuTime() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// cutNow judges the connections of the addresses that are noted, and cuts those that are denied. It returns how many,
// and how much CPU time the walk over all connections took.
func (e *Engine) cutNow(ctx context.Context) (number int, walk time.Duration, err error) {
	e.mu.Lock()
	addresses := e.concerned
	e.concerned = map[netip.Addr]bool{}
	e.mu.Unlock()
	if len(addresses) == 0 {
		return 0, 0, nil
	}
	defer func() {
		if err != nil {
			e.mu.Lock()
			e.concern(slices.Collect(maps.Keys(addresses)))
			e.mu.Unlock()
		}
	}()
	conn, err := conntrack.Dial()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	began := cpuTime()
	flows, err := conn.OfAny(addresses)
	walk = cpuTime() - began
	if err != nil || len(flows) == 0 {
		return 0, walk, err
	}
	own, err := ownAddresses()
	if err != nil {
		return 0, walk, err
	}
	if !e.options.KeepConnections {
		denied, version := e.denyAnswers(flows, own)
		if len(denied) > 0 && e.applies(ctx, version) {
			number, err = e.delete(conn, denied)
		}
	}
	if err == nil {
		err = e.tolerate(conn, flows)
	}
	return number, walk, err
}

// delete deletes the entries of connections, and returns how many.
func (e *Engine) delete(conn *conntrack.Conn, denied []conntrack.Flow) (number int, err error) {
	defer func() {
		if number > 0 {
			e.options.Decided()
		}
		e.mu.Lock()
		e.cutCount += uint64(number)
		e.mu.Unlock()
		notify(e.wake) // for the state
	}()
	for _, f := range denied {
		if err := conn.Delete(f); err != nil {
			return number, err
		}
		number++
	}
	return number, nil
}

// denyAnswers returns the connections that are denied. version is that in which the answers on them are denied, too.
func (e *Engine) denyAnswers(flows []conntrack.Flow, own map[netip.Addr]bool) (
	denied []conntrack.Flow, version uint64,
) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, allows := time.Now(), e.allows()
	for _, f := range flows {
		if own[f.Source.Addr()] || own[f.ReplySource.Addr()] {
			continue
		}
		entry := f
		if allows(packetOf(f)) && e.unjudged(f, now) {
			f = reverse(f)
		}
		if allows(packetOf(f)) {
			continue
		}
		denied = append(denied, entry)
		answer := ruleset.Flow{
			Source: f.ReplySource, Destination: f.ReplyDestination, Protocol: policy.Protocol(f.Protocol),
		}
		// Answers to another address than the first packet's come to this node, which translates them back.
		if answer.Protocol.HasPorts() && f.ReplyDestination == f.Source {
			e.cuts[answer] = now
		}
	}
	if len(denied) > 0 {
		e.boundCuts()
		e.cutsChanged = true
		e.change()
	}
	return denied, e.version
}

// boundCuts forgets the oldest flows that stay denied, if they are too many.
func (e *Engine) boundCuts() {
	if len(e.cuts) <= maxCuts {
		return
	}
	oldest := slices.SortedFunc(maps.Keys(e.cuts), func(a, b ruleset.Flow) int { return e.cuts[a].Compare(e.cuts[b]) })
	for _, f := range oldest[:len(oldest)-maxCuts] {
		delete(e.cuts, f)
	}
}

// applies waits until the kernel has a version, and reports whether it has.
func (e *Engine) applies(ctx context.Context, version uint64) bool {
	for {
		e.mu.Lock()
		ok, passed := e.applied >= version, e.passed
		e.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-passed:
		case <-ctx.Done():
			return false
		}
	}
}

// keptCuts returns the flows that stay denied, in order, and forgets the others. The mutex is held.
func (e *Engine) keptCuts(now time.Time) (flows []ruleset.Flow) {
	allows := e.allows()
	for f, at := range e.cuts {
		first := policy.Packet{Source: f.Destination.Addr(), Destination: f.Source.Addr(), Port: f.Source.Port(),
			Protocol: f.Protocol}
		if now.Sub(at) > cutFor || allows(first) {
			delete(e.cuts, f)
			continue
		}
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b ruleset.Flow) int {
		return cmp.Or(a.Source.Compare(b.Source), a.Destination.Compare(b.Destination),
			cmp.Compare(a.Protocol, b.Protocol))
	})
	return flows
}

// allows returns a function that reports whether a packet is allowed. Many connections begin with equal packets, since
// the port of the client does not count: each is judged once. The mutex is held, also while the function is used.
func (e *Engine) allows() func(policy.Packet) bool {
	known := map[policy.Packet]bool{}
	return func(p policy.Packet) bool {
		allowed, ok := known[p]
		if !ok {
			v := policy.Judge(e.compiler, e.options.Node, p)
			allowed = v[policy.Ingress].Allowed && v[policy.Egress].Allowed
			known[p] = allowed
		}
		return allowed
	}
}

// packetOf returns the first packet of a connection as it was in the forward hook: after the translation of its
// destination, and before that of its source.
func packetOf(f conntrack.Flow) policy.Packet {
	p := policy.Packet{Source: f.Source.Addr(), Destination: f.ReplySource.Addr(), Port: f.ReplySource.Port(),
		Protocol: policy.Protocol(f.Protocol)}
	if p.Protocol == policy.ICMPv6 {
		const echoRequest = 128
		p.ICMPType = echoRequest
	}
	return p
}

// ownAddresses returns the addresses of this node: what it sends, or gets, is not judged.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if address, ok := netip.AddrFromSlice(n.IP); ok {
				own[address.Unmap()] = true
			}
		}
	}
	return own, nil
}

// adoptCuts takes over the flows that an earlier run has denied.
func (p *pass) adoptCuts() {
	if p.options.KeepConnections {
		return
	}
	now := time.Now()
	for _, f := range subnet.Families() {
		list, err := p.policies.table.Elements(ruleset.CutSet(f))
		if err != nil {
			continue // the next pass meets the same error, and logs it
		}
		p.mu.Lock()
		for _, flow := range ruleset.CutIn(f, list) {
			p.cuts[flow] = now
		}
		p.mu.Unlock()
	}
}
