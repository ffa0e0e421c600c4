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

// When a question is asked again, and how long an answer to the last may take.
const (
	again    = 250 * time.Millisecond
	attempts = 3
	last     = 600 * time.Millisecond
	// atOnce is how many peers are asked at the same time: some hundred packets, and no burst that a switch would drop.
	atOnce = 64
)

// Options are what a [Prober] needs to know of the node.
type Options struct {
	Local [2]netip.Addr // the underlay's, by subnet.Family
	Port  uint16        // of VXLAN; 0: there is none
}

// Prober asks. Make one with [Open].
type Prober struct {
	options Options
	id      uint16 // of all our echoes
	sockets [2]sockets
	reading sync.WaitGroup

	mu      sync.Mutex
	next    [2]uint16
	waiting map[question]*asked
	seen    map[question][]sighting // while somebody watches; else nil
	tunnels map[netip.Addr]Echo     // what was said of VXLAN packets to a peer
}

// question is one packet.
type question struct {
	family subnet.Family
	seq    uint16
}

// asked is what is known of a question that may still be answered.
type asked struct {
	sent   time.Time
	answer chan<- answer // has room
}

// answer is what came of a question.
type answer struct {
	message
	from netip.Addr
	rtt  time.Duration
}

// Open opens the sockets, which takes CAP_NET_RAW.
func Open(ctx context.Context, o Options) (*Prober, error) {
	p := &Prober{options: o, id: uint16(rand.Uint32()), waiting: map[question]*asked{}, tunnels: map[netip.Addr]Echo{}}
	for _, f := range subnet.Families() {
		s, err := openSockets(ctx, f)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.sockets[f] = s
		p.reading.Go(func() { receive(f, s.usual, p.heard) })
	}
	return p, nil
}

// Close closes them.
func (p *Prober) Close() {
	for _, s := range p.sockets {
		s.close()
	}
	p.reading.Wait()
}

// heard takes in a message.
func (p *Prober) heard(f subnet.Family, from netip.Addr, m message) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.udp != 0 && m.udp == p.options.Port {
		p.tunnels[m.dest] = Echo{TooBigFor: m.mtu, Refused: m.reason, By: from}
		return
	}
	if m.kind == other || m.kind == request || m.id != p.id {
		return
	}
	if a := p.waiting[question{f, m.seq}]; a != nil {
		select {
		case a.answer <- answer{m, from, now.Sub(a.sent)}:
		default: // more answers than anybody asked for
		}
	}
}

// way is how to ask.
type way struct {
	to   netip.Addr
	size int
	hop  bool                             // with a single hop; that it is over is an answer
	send func(seq uint16, size int) error // by what; nil: a raw socket
}

// ask asks until there is an answer.
func (p *Prober) ask(ctx context.Context, w way) (e Echo) {
	f := subnet.FamilyOf(w.to)
	e = Echo{Size: max(w.size, header(f)+icmpHeader), Asked: true}
	if w.send == nil {
		conn := p.sockets[f].usual
		if w.hop {
			conn = p.sockets[f].hop
		}
		w.send = func(seq uint16, size int) error {
			_, err := conn.WriteToIP(encodeEcho(f, p.id, seq, size), &net.IPAddr{IP: w.to.AsSlice()})
			return err
		}
	}
	answers := make(chan answer, 2*attempts)
	defer func() { p.forget(f, e.asked) }()
	for i := range attempts {
		seq := p.expect(f, answers)
		e.asked = append(e.asked, seq)
		if err := w.send(seq, e.Size); err != nil {
			e.Failed = cause(err)
		}
		patience := again
		if i == attempts-1 {
			patience = last
		}
		if e.await(ctx, answers, patience, w.hop) || ctx.Err() != nil {
			return e
		}
	}
	return e
}

// await takes in answers for a while, and reports whether there was one that ends the asking.
func (e *Echo) await(ctx context.Context, answers <-chan answer, patience time.Duration, hop bool) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case a := <-answers:
			if a.kind == reply || a.kind == expired && hop {
				e.Answered, e.RTT, e.By, e.Failed = true, a.rtt, a.from, ""
				e.Refused, e.TooBigFor = "", 0
				return true
			}
			e.Refused, e.TooBigFor, e.By = a.reason, a.mtu, a.from
			if a.kind == expired {
				e.Refused = "too many hops"
			}
		}
	}
}

func (p *Prober) expect(f subnet.Family, answers chan<- answer) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[f]++
	p.waiting[question{f, p.next[f]}] = &asked{time.Now(), answers}
	return p.next[f]
}

func (p *Prober) forget(f subnet.Family, seqs []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range seqs {
		delete(p.waiting, question{f, seq})
	}
}

// cause is the innermost error: "message too long", and not the socket's address before it.
func cause(err error) string {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err.Error()
		}
		err = inner.Unwrap()
	}
}

// each calls do with all paths, many at the same time, until ctx ends; done is told after each.
func each(ctx context.Context, paths []Path, do func(*Path), done func()) {
	var working sync.WaitGroup
	defer working.Wait()
	room := make(chan struct{}, atOnce)
	for i := range paths {
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		}
		working.Go(func() {
			do(&paths[i])
			done()
			<-room
		})
	}
}

// together runs functions at the same time and waits for them.
func together(all ...func()) {
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(f)
	}
	running.Wait()
}

// observed fills in what was seen of an echo.
func (p *Prober) observed(f subnet.Family, e *Echo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range e.asked {
		for _, s := range p.seen[question{f, seq}] {
			switch at := (Arrival{s.link, s.outer}); {
			case s.outgoing && s.kind == request:
				if !slices.Contains(e.Left, s.link) {
					e.Left = append(e.Left, s.link)
				}
			case !s.outgoing && s.kind != request && !slices.Contains(e.Came, at):
				e.Came = append(e.Came, at)
			}
		}
	}
}
