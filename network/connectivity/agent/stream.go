package agent

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// settle is how long an answer to a datagram is waited for before it counts as lost. On a busy machine, it may stay in
// the buffer of a socket for a while.
const settle = 5 * time.Second

// stream sends numbered datagrams and notes which were answered.
type stream struct {
	to   Stream
	conn *net.UDPConn

	mu       sync.Mutex
	sent     []time.Time
	answered []bool // as long as sent
	reported int    // how many of them a report was about
}

// newStream opens the socket. It is not connected: that there is no way at times is loss and not an error.
func newStream(to Stream) (*stream, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	return &stream{to: to, conn: conn}, widen(conn)
}

// run sends until ctx ends.
func (s *stream) run(ctx context.Context) {
	var receiving sync.WaitGroup
	receiving.Go(s.receive)
	defer receiving.Wait()
	defer s.conn.Close()
	tick := time.NewTicker(s.to.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.send()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (s *stream) send() {
	s.mu.Lock()
	number := len(s.sent)
	s.sent, s.answered = append(s.sent, time.Now()), append(s.answered, false)
	s.mu.Unlock()
	_, _ = s.conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(number)), s.to.To) // it is lost then
}

func (s *stream) receive() {
	packet := make([]byte, 256)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(packet)
		if err != nil {
			return // it was closed: an unconnected socket gets no ICMP errors
		}
		if n < numberSize || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != s.to.To {
			continue
		}
		number := binary.BigEndian.Uint64(packet)
		s.mu.Lock()
		if number < uint64(len(s.answered)) {
			s.answered[number] = true
		}
		s.mu.Unlock()
	}
}

// report counts the datagrams that were sent since the last report. Those on their way get time to be answered.
func (s *stream) report(ctx context.Context) (Losses, error) {
	s.mu.Lock()
	until, now := len(s.sent), time.Now()
	s.mu.Unlock()
	for end := time.Now().Add(settle); !s.complete(until) && time.Now().Before(end); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return Losses{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.reported
	if until < from {
		return Losses{}, nil // another report came first
	}
	s.reported = until
	return count(s.sent[from:until], s.answered[from:until], now), nil
}

// complete reports whether all datagrams before that number that no report was about are answered.
func (s *stream) complete(until int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return until <= s.reported || !slices.Contains(s.answered[s.reported:until], false)
}

// count says how many were lost. end is when the sending of those ended.
func count(sent []time.Time, answered []bool, end time.Time) Losses {
	l := Losses{Sent: len(sent)}
	first := -1 // of those lost in a row
	for i := range sent {
		if answered[i] {
			first = -1
			continue
		}
		if l.Lost == 0 {
			l.First = sent[i]
		}
		l.Lost++
		if first < 0 {
			first = i
		}
		next := end
		if i+1 < len(sent) {
			next = sent[i+1]
		}
		l.Gap = max(l.Gap, next.Sub(sent[first]))
	}
	return l
}
