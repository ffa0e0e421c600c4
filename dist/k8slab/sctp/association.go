package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// How often what is not answered is sent again, and for how long; and how long Close waits for a first message.
const (
	resend        = 200 * time.Millisecond
	giveUp        = 30 * time.Second
	giveUpClosing = time.Second
	linger        = 10 * time.Second
)

// SCTPConn is an association.
type SCTPConn struct {
	send  func(packet) error
	local uint16
	peer  *SCTPAddr
	free  func() // called once, when it has ended

	inbox       chan []byte
	established chan struct{} // closed by COOKIE ACK
	heard       chan struct{} // closed by the first message
	acked       chan uint32   // TSNs
	ended       chan struct{} // closed by the peer's or the own shutdown
	problem     chan error    // why it cannot be set up

	mu       sync.Mutex
	own      start // tsn: the next to send
	theirs   start // tsn: the next that is expected
	cookie   []byte
	deadline time.Time // of reads
	closing  sync.Once
	accepted sync.Once
	first    sync.Once
}

func newConn(send func(packet) error, local uint16, peer *SCTPAddr) *SCTPConn {
	return &SCTPConn{
		send: send, local: local, peer: peer, own: start{tag: rand.Uint32() | 1, tsn: rand.Uint32()}, free: func() {},
		inbox: make(chan []byte, 16), acked: make(chan uint32, 16), established: make(chan struct{}),
		heard: make(chan struct{}),
		ended: make(chan struct{}), problem: make(chan error, 1),
	}
}

func (c *SCTPConn) transmit(kind, flags uint8, value []byte) error {
	c.mu.Lock()
	tag := c.theirs.tag
	c.mu.Unlock()
	return c.send(packet{from: c.local, to: uint16(c.peer.Port), tag: tag, kind: kind, flags: flags, value: value})
}

// handle takes one packet of the association.
func (c *SCTPConn) handle(p packet) {
	switch p.kind {
	case typeInitAck:
		c.takeInitAck(p)
	case typeCookieAck:
		c.accepted.Do(func() { close(c.established) })
	case typeData:
		c.takeData(p.value)
	case typeSack:
		c.takeAcknowledgement(p.value)
	case typeShutdown:
		c.takeAcknowledgement(p.value)
		_ = c.transmit(typeShutdownAck, 0, nil)
		c.end()
	case typeShutdownAck:
		_ = c.transmit(typeShutdownComplete, 0, nil)
		c.end()
	case typeShutdownComplete, typeAbort:
		c.end()
	}
}

func (c *SCTPConn) takeInitAck(p packet) {
	s, err := parseStart(p.value)
	if err != nil || s.cookie == nil {
		return
	}
	c.mu.Lock()
	if c.cookie == nil {
		c.theirs, c.cookie = s, s.cookie
	}
	cookie := c.cookie
	c.mu.Unlock()
	_ = c.transmit(typeCookieEcho, 0, cookie)
}

// takeData delivers a message if it is the next, and acknowledges what was delivered.
func (c *SCTPConn) takeData(b []byte) {
	if len(b) < dataHeader {
		return
	}
	c.mu.Lock()
	if binary.BigEndian.Uint32(b) == c.theirs.tsn {
		select {
		case c.inbox <- b[dataHeader:]:
			c.theirs.tsn++
			c.first.Do(func() { close(c.heard) })
		default:
		}
	}
	sack := binary.BigEndian.AppendUint32(nil, c.theirs.tsn-1)
	c.mu.Unlock()
	sack = binary.BigEndian.AppendUint32(sack, window)
	_ = c.transmit(typeSack, 0, append(sack, 0, 0, 0, 0)) // no gaps, no duplicates
}

// takeAcknowledgement takes the TSN that SACK and SHUTDOWN begin with: all messages up to it have arrived.
func (c *SCTPConn) takeAcknowledgement(b []byte) {
	if len(b) < 4 {
		return
	}
	select {
	case c.acked <- binary.BigEndian.Uint32(b):
	default:
	}
}

func (c *SCTPConn) end() { c.closing.Do(func() { close(c.ended); c.free() }) }

// repeat sends until something is answered.
func (c *SCTPConn) repeat(limit time.Duration, send func() error, answered func(<-chan time.Time) (bool, error)) error {
	for until := time.Now().Add(limit); time.Now().Before(until); {
		if err := send(); err != nil {
			return err
		}
		if done, err := answered(time.After(resend)); done || err != nil {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

// connect sets the association up.
func (c *SCTPConn) connect() error {
	return c.repeat(giveUp, func() error {
		c.mu.Lock()
		cookie := c.cookie
		c.mu.Unlock()
		if cookie != nil {
			return c.transmit(typeCookieEcho, 0, cookie)
		}
		return c.transmit(typeInit, 0, c.own.marshal())
	}, func(late <-chan time.Time) (bool, error) {
		select {
		case <-c.established:
			return true, nil
		case err := <-c.problem:
			return false, err
		case <-c.ended:
			return false, errors.New("association refused")
		case <-late:
			return false, nil
		}
	})
}

// Write sends a message, and waits until the peer acknowledges it.
func (c *SCTPConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	tsn := c.own.tsn
	c.own.tsn++
	c.mu.Unlock()
	value := binary.BigEndian.AppendUint32(nil, tsn)
	value = append(value, make([]byte, dataHeader-len(value))...) // stream 0, sequence number 0, no protocol identifier
	value = append(value, b...)
	err := c.repeat(giveUp, func() error { return c.transmit(typeData, wholeMessage, value) },
		func(late <-chan time.Time) (bool, error) {
			for {
				select {
				case n := <-c.acked:
					if int32(n-tsn) >= 0 {
						return true, nil
					}
				case <-c.ended:
					if c.acknowledged(tsn) {
						return true, nil
					}
					return false, io.ErrClosedPipe
				case <-late:
					return false, nil
				}
			}
		})
	if err != nil {
		return 0, fmt.Errorf("write to %s: %w", c.peer, err)
	}
	return len(b), nil
}

// acknowledged reports whether one of the acknowledgements that have come is of a TSN.
func (c *SCTPConn) acknowledged(tsn uint32) bool {
	for {
		select {
		case n := <-c.acked:
			if int32(n-tsn) >= 0 {
				return true
			}
		default:
			return false
		}
	}
}

// Read waits for a message.
func (c *SCTPConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	var late <-chan time.Time
	if !c.deadline.IsZero() {
		late = time.After(time.Until(c.deadline))
	}
	c.mu.Unlock()
	select {
	case m := <-c.inbox:
		return copy(b, m), nil
	default:
	}
	select {
	case m := <-c.inbox:
		return copy(b, m), nil
	case <-c.ended:
		return 0, io.EOF
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
}

// SetReadDeadline sets when Read gives up; zero: never.
func (c *SCTPConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// Close ends the association. It waits a second at most for the peer, and reports nothing if that does not answer.
//
// Before, it waits some seconds for the first message of the peer: a server that closes without reading, as agnhost's
// does, must not end the association before the client's first message is sent. In the kernel, that is sent with COOKIE
// ECHO.
func (c *SCTPConn) Close() error {
	defer c.end()
	select {
	case <-c.heard:
	case <-c.ended:
	case <-time.After(linger):
	}
	_ = c.repeat(giveUpClosing, func() error {
		c.mu.Lock()
		value := binary.BigEndian.AppendUint32(nil, c.theirs.tsn-1)
		c.mu.Unlock()
		select {
		case <-c.ended:
			return io.EOF
		default:
		}
		return c.transmit(typeShutdown, 0, value)
	}, func(late <-chan time.Time) (bool, error) {
		select {
		case <-c.ended:
			return true, nil
		case <-late:
			return false, nil
		}
	})
	return nil
}

// SCTPRemoteAddr returns the peer's address. The argument is not used.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) { return c.peer, nil }
