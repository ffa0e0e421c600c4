package exchange

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// limits bound what clients can make a server do before they have shown a certificate.
type limits struct {
	open      int           // connections at the same time
	perSource int           // of one address
	every     time.Duration // between two accepted connections, after the first ones of a burst
	burst     int
	client    time.Duration // for the handshake, for the request, and for reading the answer
}

// daemonLimits: selvaged mesh opens one connection to each node and closes it. A handshake costs a millisecond or so of
// CPU time, see BenchmarkMesh: at the rate, connections that come without end take less than a tenth of a core.
var daemonLimits = limits{open: 64, perSource: 8, every: 20 * time.Millisecond, burst: 32, client: 3 * time.Second}

// pacer says when the next connection may be accepted: every so often, and a burst at once (the generic cell rate
// algorithm).
type pacer struct{ due time.Time }

// wait returns how long to wait before the next one, and counts it.
func (p *pacer) wait(l limits, now time.Time) time.Duration {
	if p.due.Before(now) {
		p.due = now
	}
	wait := p.due.Sub(now) - l.every*time.Duration(l.burst-1)
	p.due = p.due.Add(l.every)
	return max(0, wait)
}

// listener accepts connections within limits. Those that come too fast wait in the kernel's queue, without a file
// descriptor; those beyond the numbers are closed at once.
type listener struct {
	net.Listener
	limits limits
	pace   pacer // of Accept, which one goroutine calls
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	open    int
	peak    int // the most that were open at the same time
	sources map[netip.Addr]int
}

// Bound returns a listener that has so many connections open at the same time at most. It closes those beyond at once.
func Bound(l net.Listener, open int) net.Listener {
	return newListener(l, limits{open: open, perSource: open})
}

func newListener(l net.Listener, limits limits) *listener {
	return &listener{Listener: l, limits: limits, closed: make(chan struct{}), sources: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		if wait := l.pace.wait(l.limits, time.Now()); wait > 0 {
			select {
			case <-l.closed:
				return nil, net.ErrClosed
			case <-time.After(wait):
			}
		}
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from := sourceOf(c); l.admit(from) {
			return &conn{Conn: c, done: func() { l.release(from) }}, nil
		}
		_ = c.Close()
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) admit(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limits.open || l.sources[from] >= l.limits.perSource {
		return false
	}
	l.open++
	l.peak = max(l.peak, l.open)
	l.sources[from]++
	return true
}

func (l *listener) release(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.sources[from]--; l.sources[from] == 0 {
		delete(l.sources, from)
	}
}

// sourceOf returns the address that a connection counts for: of IPv6 the /64, of which a host can use every address.
func sourceOf(c net.Conn) netip.Addr {
	return sourceAt(c.RemoteAddr().String())
}

// sourceAt is sourceOf for an address and port.
func sourceAt(remote string) netip.Addr {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	from := a.Addr().Unmap().WithZone("")
	if from.Is6() {
		const subnetBits = 64
		from = netip.PrefixFrom(from, subnetBits).Masked().Addr()
	}
	return from
}

// conn counts as open until it is closed.
type conn struct {
	net.Conn
	once sync.Once
	done func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.once.Do(c.done)
	return c.Conn.Close()
}
