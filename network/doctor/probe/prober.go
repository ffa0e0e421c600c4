package probe

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// An echo request is repeated after retryInterval until it is answered. The last attempt waits for finalTimeout.
const (
	retryInterval = 250 * time.Millisecond
	attempts      = 3
	finalTimeout  = 600 * time.Millisecond
	// maxConcurrent is how many paths are probed at the same time. That makes some hundred packets, not a burst that a
	// switch would drop.
	maxConcurrent = 64
)

// Options describe the node to a [Prober].
type Options struct {
	Local [2]netip.Addr // the node's underlay addresses, by subnet.Family
	Port  uint16        // the VXLAN port; 0: no VXLAN
}

// Prober sends echo requests and matches the answers. Create one with [Open], and close it.
type Prober struct {
	options Options
	id      uint16 // ICMP identifier of all echo requests
	sockets [2]sockets
	reading sync.WaitGroup

	mu           sync.Mutex
	next         [2]uint16
	pending      map[echoKey]*pendingEcho
	captures     map[echoKey][]capture // nil unless ProbeDetail captures packets
	tunnelErrors map[netip.Addr]Echo   // ICMP errors for VXLAN packets, by peer
}

// echoKey identifies an echo request.
type echoKey struct {
	family subnet.Family
	seq    uint16
}

// pendingEcho is an echo request that may still be answered.
type pendingEcho struct {
	sent      time.Time
	responses chan<- response // buffered, sends never block
}

// response is an echo reply or an ICMP error for an echo request.
type response struct {
	message
	from netip.Addr
	rtt  time.Duration
}

// Open opens the raw sockets, which needs CAP_NET_RAW.
func Open(ctx context.Context, o Options) (*Prober, error) {
	p := &Prober{
		options: o, id: uint16(rand.Uint32()),
		pending: map[echoKey]*pendingEcho{}, tunnelErrors: map[netip.Addr]Echo{},
	}
	for _, f := range subnet.Families() {
		s, err := openSockets(ctx, f)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.sockets[f] = s
		p.reading.Go(func() { receive(f, s.normal, p.handle) })
	}
	return p, nil
}

// Close closes the sockets.
func (p *Prober) Close() {
	for _, s := range p.sockets {
		s.close()
	}
	p.reading.Wait()
}

// handle passes an ICMP message to the echo request that it answers.
func (p *Prober) handle(f subnet.Family, from netip.Addr, m message) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.udp != 0 && m.udp == p.options.Port {
		p.tunnelErrors[m.dest] = Echo{NextHopMTU: m.mtu, Refused: m.reason, By: from}
		return
	}
	if m.kind == other || m.kind == request || m.id != p.id {
		return
	}
	if a := p.pending[echoKey{f, m.seq}]; a != nil {
		select {
		case a.responses <- response{m, from, now.Sub(a.sent)}:
		default: // duplicates, beyond what ping waits for
		}
	}
}

// pingOptions describe an echo request.
type pingOptions struct {
	to     netip.Addr
	size   int
	oneHop bool                             // with a hop limit of one; time exceeded is an answer
	send   func(seq uint16, size int) error // nil: send by a raw socket
}

// ping sends echo requests until one is answered.
func (p *Prober) ping(ctx context.Context, o pingOptions) (e Echo) {
	f := subnet.FamilyOf(o.to)
	e = Echo{Size: max(o.size, header(f)+icmpHeader), Sent: true}
	if o.send == nil {
		conn := p.sockets[f].normal
		if o.oneHop {
			conn = p.sockets[f].oneHop
		}
		o.send = func(seq uint16, size int) error {
			_, err := conn.WriteToIP(encodeEcho(f, p.id, seq, size), &net.IPAddr{IP: o.to.AsSlice()})
			return err
		}
	}
	responses := make(chan response, 2*attempts)
	defer func() { p.unregister(f, e.seqs) }()
	for i := range attempts {
		seq := p.register(f, responses)
		e.seqs = append(e.seqs, seq)
		if err := o.send(seq, e.Size); err != nil {
			e.SendError = rootCause(err)
		}
		timeout := retryInterval
		if i == attempts-1 {
			timeout = finalTimeout
		}
		if e.await(ctx, responses, timeout, o.oneHop) || ctx.Err() != nil {
			return e
		}
	}
	return e
}

// await reads responses until the timeout, and reports whether one of them answers the request. With oneHop, time
// exceeded does.
func (e *Echo) await(ctx context.Context, responses <-chan response, timeout time.Duration, oneHop bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case a := <-responses:
			if a.kind == reply || a.kind == expired && oneHop {
				e.Answered, e.RTT, e.By, e.SendError = true, a.rtt, a.from, ""
				e.Refused, e.NextHopMTU = "", 0
				return true
			}
			e.Refused, e.NextHopMTU, e.By = a.reason, a.mtu, a.from
			if a.kind == expired {
				e.Refused = "too many hops"
			}
		}
	}
}

func (p *Prober) register(f subnet.Family, responses chan<- response) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[f]++
	p.pending[echoKey{f, p.next[f]}] = &pendingEcho{time.Now(), responses}
	return p.next[f]
}

func (p *Prober) unregister(f subnet.Family, seqs []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range seqs {
		delete(p.pending, echoKey{f, seq})
	}
}

// rootCause returns the text of the innermost error: "message too long", without the socket's address.
func rootCause(err error) string {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err.Error()
		}
		err = inner.Unwrap()
	}
}

// forEach calls do for all paths, maxConcurrent at a time, until ctx ends. It calls done after each.
func forEach(ctx context.Context, paths []Path, do func(*Path), done func()) {
	var working sync.WaitGroup
	defer working.Wait()
	slots := make(chan struct{}, maxConcurrent)
	for i := range paths {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		working.Go(func() {
			do(&paths[i])
			done()
			<-slots
		})
	}
}

// parallel runs functions at the same time and waits for all of them.
func parallel(all ...func()) {
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(f)
	}
	running.Wait()
}

// mergeCaptures adds the captured packets to an echo.
func (p *Prober) mergeCaptures(f subnet.Family, e *Echo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range e.seqs {
		for _, s := range p.captures[echoKey{f, seq}] {
			switch at := (Arrival{s.link, s.outer}); {
			case s.outgoing && s.kind == request:
				if !slices.Contains(e.Egress, s.link) {
					e.Egress = append(e.Egress, s.link)
				}
			case !s.outgoing && s.kind != request && !slices.Contains(e.Arrivals, at):
				e.Arrivals = append(e.Arrivals, at)
			}
		}
	}
}
