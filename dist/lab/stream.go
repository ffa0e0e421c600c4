package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

const (
	// settle is how long a lost datagram's answer is waited for once an answer to a later one has come, which shows
	// that the path works.
	settle = 500 * time.Millisecond
	// closing is the number of the datagrams that are sent after the last one, every closingEvery, until one is answered.
	closing      = math.MaxUint64
	closingEvery = 20 * time.Millisecond
)

// StreamReport counts the datagrams of a stream.
type StreamReport struct {
	Family     subnet.Family // that was used
	Sent, Lost int
	// Gap is the longest time without a datagram that got an answer: from the sending of the first lost one to the sending
	// of the next that was not, or to the end.
	Gap time.Duration
}

func (r StreamReport) String() string {
	return fmt.Sprintf("%d sent, %d lost, longest gap %s", r.Sent, r.Lost, r.Gap.Round(100*time.Microsecond))
}

// Stream sends a datagram from one endpoint to another every so often until ctx ends, at least one, then waits until all are
// answered. Those that are not half a second after a later datagram was are lost. An error means that there was no
// stream, not that all was lost.
//
// It uses IPv4 if both ends have it; [Lab.StreamFamily] chooses, and [Lab.StreamShared] uses all that both have.
func (l *Lab) Stream(ctx context.Context, from, to *Endpoint, every time.Duration) (StreamReport, error) {
	return l.StreamFamily(ctx, preferred(from, to), from, to, every)
}

// StreamShared is [Lab.Stream] in each family that both ends have, at the same time, one report a family.
func (l *Lab) StreamShared(ctx context.Context, from, to *Endpoint, every time.Duration) ([]StreamReport, error) {
	type outcome struct {
		report StreamReport
		err    error
	}
	streams := eachShared(from, to, func(f subnet.Family) chan outcome {
		done := make(chan outcome, 1)
		go func() {
			r, err := l.StreamFamily(ctx, f, from, to, every)
			done <- outcome{r, err}
		}()
		return done
	})
	var reports []StreamReport
	var errs []error
	for _, done := range streams {
		o := <-done
		reports, errs = append(reports, o.report), append(errs, o.err)
	}
	return reports, errors.Join(errs...)
}

// StreamFamily is [Lab.Stream] in the given family.
func (l *Lab) StreamFamily(ctx context.Context, f subnet.Family, from, to *Endpoint, every time.Duration) (StreamReport, error) {
	if !share(f, from, to) {
		return StreamReport{}, errNoShared(f, from, to)
	}
	// Not connected: a route that is missing, at first or meanwhile, is loss and not an error.
	conn, err := in(from.do, func() (*net.UDPConn, error) { return net.ListenUDP("udp", nil) })
	if err != nil {
		return StreamReport{}, fmt.Errorf("stream from %s to %s: %w", from.name, to.name, err)
	}
	defer conn.Close()
	target := netip.AddrPortFrom(to.Addr(f), EchoPort)
	answers, total := make(chan []uint64, 1), make(chan int, 1)
	go func() { answers <- receive(conn, target, total, l.options.Patience) }()
	sent := send(ctx, conn, target, every)
	total <- len(sent) - 1
	conn.SetReadDeadline(time.Now()) // has receive look at total
	r := report(sent, closeStream(conn, target, answers))
	r.Family = f
	return r, nil
}

// closeStream sends closing datagrams until answers gives what was answered.
func closeStream(conn *net.UDPConn, target netip.AddrPort, answers <-chan []uint64) []uint64 {
	tick := time.NewTicker(closingEvery)
	defer tick.Stop()
	for {
		select {
		case answered := <-answers:
			return answered
		case <-tick.C:
			conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, closing), target)
		}
	}
}

// send returns when each datagram was sent; the last value is the end. One that the kernel refused, for want of a
// route for instance, is lost like one that was dropped later.
func send(ctx context.Context, conn *net.UDPConn, target netip.AddrPort, every time.Duration) []time.Time {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var sent []time.Time
	for {
		now := time.Now()
		sent = append(sent, now)
		if ctx.Err() != nil && len(sent) > 1 {
			return sent
		}
		conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(len(sent)-1)), target)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// receive returns the numbers of the datagrams that target answered. It ends after the stream, when total has said how
// many were sent: when all are answered, settle after a closing datagram was, or when no answer
// has come for patience.
func receive(conn *net.UDPConn, target netip.AddrPort, total <-chan int, patience time.Duration) (numbers []uint64) {
	packet := make([]byte, 128)
	sent, closed := -1, false
	for sent < 0 || len(numbers) < sent {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if errors.Is(err, os.ErrDeadlineExceeded) && sent < 0 {
			sent = <-total
			conn.SetReadDeadline(time.Now().Add(patience))
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return numbers
		}
		if err != nil || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != target {
			continue
		}
		number, _, err := parseUDP(packet[:n])
		switch {
		case err != nil:
		case number != closing:
			numbers = append(numbers, number)
		case !closed:
			closed = true
			conn.SetReadDeadline(time.Now().Add(settle))
		}
	}
	return numbers
}

// report counts. sent holds one time more than there were datagrams: the end.
func report(sent []time.Time, answered []uint64) StreamReport {
	n := len(sent) - 1
	ok := make([]bool, n)
	for _, number := range answered {
		if number < uint64(n) {
			ok[number] = true
		}
	}
	r := StreamReport{Sent: n}
	first := -1 // of the datagrams lost in a row
	for i := range n {
		if ok[i] {
			first = -1
			continue
		}
		r.Lost++
		if first < 0 {
			first = i
		}
		next := i + 1 // the next that was answered, or the end, if none of those after this one is lost
		r.Gap = max(r.Gap, sent[next].Sub(sent[first]))
	}
	return r
}
