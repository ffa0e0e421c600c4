package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// track is what is sent in one way from one pod to another in one family, and what of it has arrived. What arrives is
// noted by the receiver, so that a denied packet counts even if nothing comes back.
type track struct {
	pair
	family subnet.Family
	id     uint32

	mu      sync.Mutex
	sent    []time.Time // the end of the call that sent it
	arrived []bool
	bytes   int // received, of a stream of bytes
}

// send calls do to send the next number, and notes when that was. Until do has returned, it may not have been sent.
func (t *track) send(do func(number uint32)) (number uint32) {
	t.mu.Lock()
	number = uint32(len(t.sent))
	t.sent, t.arrived = append(t.sent, time.Now()), append(t.arrived, false)
	t.mu.Unlock()
	do(number)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[number] = time.Now()
	return number
}

func (t *track) arrive(n uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(n) < len(t.arrived) {
		t.arrived[n] = true
	}
}

// has reports whether number n has arrived.
func (t *track) has(n uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrived[n]
}

// any reports whether anything has arrived.
func (t *track) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.arrived, true)
}

// missing is how many have not arrived.
func (t *track) missing() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, arrived := range t.arrived {
		if !arrived {
			n++
		}
	}
	return n
}

func (t *track) received() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// tracks are all that are in use, by id.
type tracks struct {
	mu   sync.Mutex
	last uint32
	of   map[uint32]*track
}

func (all *tracks) add(p pair, f subnet.Family) *track {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.last++
	t := &track{pair: p, family: f, id: all.last}
	if all.of == nil {
		all.of = map[uint32]*track{}
	}
	all.of[t.id] = t
	return t
}

func (all *tracks) remove(list []*track) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, t := range list {
		delete(all.of, t.id)
	}
}

func (all *tracks) find(id uint32) *track {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.of[id]
}

// A record is a datagram, or a part of a connection: the id of a track, a number in it, and what to do.
const (
	recordSize = 12
	sinkPort   = 7071

	noteIt   = 0 // note the number
	answerIt = 1 // and send the datagram back
	countAll = 2 // count all bytes of the connection from here on
)

func record(t *track, n, what uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, t.id)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, n), what)
}

// sink receives on the addresses of a pod what goes over tracks.
type sink struct {
	tracks  *tracks
	closers []io.Closer
	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]bool
	closed  bool
}

// listen has a pod receive.
func (all *tracks) listen(p *lab.Pod, families []subnet.Family) (*sink, error) {
	s := &sink{tracks: all, conns: map[net.Conn]bool{}}
	for _, f := range families {
		at := netip.AddrPortFrom(p.Addr(f), sinkPort)
		err := p.Do(func() error {
			udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			s.closers = append(s.closers, udp)
			_ = udp.SetReadBuffer(4 << 20) // as much as the kernel grants
			tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			s.closers = append(s.closers, tcp)
			s.wg.Go(func() { s.datagrams(udp) })
			s.wg.Go(func() { s.connections(tcp) })
			return nil
		})
		if err != nil {
			return s, errors.Join(fmt.Errorf("receive on %s: %w", p.Name(), err), s.close())
		}
	}
	return s, nil
}

func (s *sink) close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	for _, c := range s.closers {
		c.Close()
	}
	s.wg.Wait()
	return nil
}

func (s *sink) datagrams(conn *net.UDPConn) {
	b := make([]byte, 64)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil && n == recordSize:
			if _, what, ok := s.note(b); ok && what == answerIt {
				conn.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}
}

// note takes in a record.
func (s *sink) note(b []byte) (t *track, what uint32, ok bool) {
	if t = s.tracks.find(binary.BigEndian.Uint32(b)); t == nil {
		return nil, 0, false
	}
	if what = binary.BigEndian.Uint32(b[8:]); what != countAll {
		t.arrive(binary.BigEndian.Uint32(b[4:]))
	}
	return t, what, true
}

func (s *sink) connections(listener *net.TCPListener) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.mu.Lock()
		if s.closed {
			conn.Close()
		} else {
			s.conns[conn] = true
			s.wg.Go(func() { s.connection(conn) })
		}
		s.mu.Unlock()
	}
}

// connection reads records until the sender resets the connection.
func (s *sink) connection(conn *net.TCPConn) {
	defer func() {
		conn.SetLinger(0)
		conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	}()
	b := make([]byte, 64<<10)
	for {
		if _, err := io.ReadFull(conn, b[:recordSize]); err != nil {
			return
		}
		t, what, ok := s.note(b)
		for ok && what == countAll {
			n, err := conn.Read(b)
			t.mu.Lock()
			t.bytes += n
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}
