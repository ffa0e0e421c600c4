package probe

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Of a measurement of loss. It takes two seconds at most, and less than 100 kbit/s, so that it causes no loss itself.
const (
	// lossRequests is enough that of a loss of 5 % in each direction, all but one measurement in 2,000 see two losses.
	lossRequests = 100
	lossInterval = 10 * time.Millisecond
	lossTimeout  = time.Second // of the last request
)

// Loss counts small echo requests that were sent one after the other.
type Loss struct {
	Sent, Lost int
	MaxRTT     time.Duration
}

// Losses is the loss on the way to a peer.
type Losses struct{ Underlay, Overlay Loss }

// MeasureLoss measures the loss on the paths to targets, and returns it in their order. A peer without an overlay
// device limits the rate of its answers in the overlay, so only the underlay is measured: the path is nothing else.
func (p *Prober) MeasureLoss(ctx context.Context, targets []Target) []Losses {
	all := make([]Losses, len(targets))
	var work []func()
	for i, t := range targets {
		work = append(work, func() { all[i].Underlay = p.loss(ctx, t.Underlay) })
		if !t.NoDevice {
			work = append(work, func() { all[i].Overlay = p.loss(ctx, t.Overlay) })
		}
	}
	parallel(work...)
	return all
}

// loss sends echo requests and counts those without an answer.
func (p *Prober) loss(ctx context.Context, to netip.Addr) (l Loss) {
	f := subnet.FamilyOf(to)
	responses := make(chan response, 2*lossRequests)
	var seqs []uint16
	defer func() { p.unregister(f, seqs) }()
	send := func() {
		seq := p.register(f, responses)
		seqs = append(seqs, seq)
		request := encodeEcho(f, p.id, seq, header(f)+icmpHeader)
		// One that the kernel refuses to send is lost as well.
		_, _ = p.sockets[f].normal.WriteToIP(request, &net.IPAddr{IP: to.AsSlice()})
	}
	tick := time.NewTicker(lossInterval)
	defer tick.Stop()
	ticks := tick.C
	var end <-chan time.Time
	answered := map[uint16]bool{}
	for over := false; !over && len(answered) < lossRequests; {
		select {
		case r := <-responses:
			if r.kind == reply && !answered[r.seq] {
				answered[r.seq] = true
				l.MaxRTT = max(l.MaxRTT, r.rtt)
			}
		case <-ticks:
			if send(); len(seqs) == lossRequests {
				ticks, end = nil, time.After(lossTimeout)
			}
		case <-end:
			over = true
		case <-ctx.Done():
			return Loss{} // nothing is known of requests in flight
		}
	}
	l.Sent, l.Lost = lossRequests, lossRequests-len(answered)
	return l
}
