package enforce

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/conntrack"
	"github.com/selvage-net/selvage/network/policy"
)

// Packets between two pods of this node are neither judged nor tracked while a setting for bridged packets is off. No
// packets may be while another process has removed the table. The first packet of a connection that began meanwhile,
// and is seen afterwards, can be an answer: then connection tracking takes it for the first packet of one in the other
// direction, which policies may allow, and everything passes. So for some time after that, entries are looked at that
// seem to be the wrong way round: from the port of a service to one that systems choose for clients.
//
// A TCP connection that was tracked before has left the window that the kernel knows, and its packets would be invalid
// for ever. So the entries that stay are made liberal.

// bypassLooks are when that is done, counted from the moment at which the setting was found off, or the table repaired.
var bypassLooks = []time.Duration{
	20 * time.Millisecond, 40 * time.Millisecond, 60 * time.Millisecond, 80 * time.Millisecond,
	100 * time.Millisecond, 120 * time.Millisecond, 140 * time.Millisecond, 160 * time.Millisecond,
	200 * time.Millisecond, 300 * time.Millisecond, time.Second, 10 * time.Second, time.Minute,
}

// clientPorts are those that systems choose for clients by default (net.ipv4.ip_local_port_range). Those of services
// are lower.
var clientPorts = policy.PortRange{First: 32768, Last: 60999}

// Bypassed says that packets between two pods of this node may have passed unjudged until now. Connections that began
// meanwhile and are denied are cut.
func (e *Engine) Bypassed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bypassed = time.Now()
	e.nextAt = e.bypassed.Add(bypassLooks[0])
	notify(e.hurry)
	notify(e.cutter)
}

// nextLook returns a channel that has a value when the next look is due; nil: none is.
func (e *Engine) nextLook() <-chan time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.nextAt.IsZero() {
		return nil
	}
	return time.After(time.Until(e.nextAt))
}

// afterLook returns when the look after one at a time is due, and zero if there is none. Those whose time is past are
// left out: a walk over many connections takes longer than the time between two.
func afterLook(bypassed, now time.Time) time.Time {
	for _, d := range bypassLooks {
		if at := bypassed.Add(d); at.After(now) {
			return at
		}
	}
	return time.Time{}
}

// look has the connections of all pods looked at that policies select.
func (p *pass) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextAt = afterLook(p.bypassed, time.Now())
	for _, a := range p.rules.Selected() {
		p.concerned[a] = true
	}
}

// bypassedLately reports whether connections may have begun, or gone on, while packets passed unjudged. The mutex is
// held.
func (e *Engine) bypassedLately(now time.Time) bool {
	last := bypassLooks[len(bypassLooks)-1] + time.Second // a look takes some time
	return !e.bypassed.IsZero() && now.Sub(e.bypassed) < last
}

// tolerate makes TCP connections liberal that may have gone on while their packets were not tracked.
func (e *Engine) tolerate(conn *conntrack.Conn, flows []conntrack.Flow) error {
	e.mu.Lock()
	lately := e.bypassedLately(time.Now())
	e.mu.Unlock()
	if !lately {
		return nil
	}
	for _, f := range flows {
		if f.Protocol != unix.IPPROTO_TCP || f.Liberal {
			continue
		}
		if err := conn.Tolerate(f); err != nil {
			return err
		}
	}
	return nil
}

// unjudged reports whether a connection seems to be the wrong way round, and may have begun while packets passed
// unjudged. The mutex is held.
func (e *Engine) unjudged(f conntrack.Flow, now time.Time) bool {
	return e.bypassedLately(now) &&
		f.Source.Port() != 0 && f.Source.Port() < clientPorts.First &&
		f.Destination.Port() >= clientPorts.First && f.Destination.Port() <= clientPorts.Last &&
		f.ReplySource == f.Destination && f.ReplyDestination == f.Source // not translated
}

// reverse returns the flow the other way round.
func reverse(f conntrack.Flow) conntrack.Flow {
	f.Source, f.Destination = f.Destination, f.Source
	f.ReplySource, f.ReplyDestination = f.ReplyDestination, f.ReplySource
	return f
}
