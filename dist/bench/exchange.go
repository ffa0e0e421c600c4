package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of an exchange.
const (
	exchangeStreams = 4       // connections of TCP
	exchangeFlows   = 2       // of UDP
	exchangeBlock   = 1 << 20 // bytes of random data, which are sent over and over
	exchangeWindow  = 32      // datagrams on their way at the same time
	exchangeAnswer  = 5 * time.Second
	exchangeBuffer  = 200 << 10 // bytes, which the kernel doubles: enough for all that are on their way, with its own
)

// exchange sends data over a way, in both directions at once, and compares what arrives.
type exchange struct {
	block []byte // of which the beginning follows the end once more, so that any piece is in one
	size  uint64 // bytes to receive, of all connections in both directions

	received, datagrams, lost atomic.Uint64
}

func newExchange(seed, size uint64) *exchange {
	block := make([]byte, exchangeBlock)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < len(block); i += 8 {
		binary.LittleEndian.PutUint64(block[i:], random.Uint64())
	}
	return &exchange{block: append(block, block[:1<<17]...), size: size}
}

// piece is n bytes from a place on.
func (x *exchange) piece(at uint64, n int) []byte { return x.block[at%exchangeBlock:][:n] }

// done reports whether enough has arrived, datagrams too.
func (x *exchange) done() bool {
	return x.received.Load() >= x.size && x.datagrams.Load() >= exchangeWindow
}

// run ends when enough has arrived, or something that was not sent.
func (x *exchange) run(ctx context.Context, w way) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	streams, err := x.connect(w)
	near, far, udpErr := x.sockets(w)
	var open []io.Closer
	for _, c := range streams {
		open = append(open, c)
	}
	for _, c := range append(near, far...) {
		open = append(open, c)
	}
	shut := func() {
		for _, c := range open {
			c.Close()
		}
	}
	defer shut()
	if err := errors.Join(err, udpErr); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, shut)() // ends what waits
	var senders, answering sync.WaitGroup
	start := func(group *sync.WaitGroup, what string, f func() error) {
		group.Go(func() {
			if err := f(); err != nil {
				cancel(fmt.Errorf("%s: %w", what, err)) // only the first one counts
			}
		})
	}
	for i, c := range streams {
		at := uint64(i/2) * 77777 // both ends of a connection send the same
		start(&senders, "send by TCP", func() error { return x.send(c, at) })
		start(&senders, "receive by TCP", func() error { return x.receive(c, at) })
	}
	to := net.UDPAddrFromAddrPort(w.targetAddr())
	if !w.via.IsValid() {
		to = far[0].LocalAddr().(*net.UDPAddr)
	}
	start(&answering, "answer by UDP", func() error { return x.answer(far[0]) })
	for i, c := range near {
		start(&senders, "ask by UDP", func() error { return x.ask(c, to, uint64(i+1)<<40) })
	}
	senders.Wait()
	far[0].Close()
	answering.Wait()
	return context.Cause(ctx)
}

// connect makes connections: their near and far ends in turn.
func (x *exchange) connect(w way) (ends []*net.TCPConn, err error) {
	var listener *net.TCPListener
	if err := w.to.do(func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: w.to.addr.AsSlice(), Port: w.listens()})
		return err
	}); err != nil {
		return nil, err
	}
	defer listener.Close()
	for range exchangeStreams {
		var near *net.TCPConn
		if err := w.from.do(func() (err error) {
			near, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(w.targetAddr()))
			return err
		}); err != nil {
			return ends, err
		}
		ends = append(ends, near)
		far, err := listener.AcceptTCP()
		if err != nil {
			return ends, err
		}
		ends = append(ends, far)
	}
	return ends, nil
}

// send sends pieces of all sizes until enough has arrived of all.
func (x *exchange) send(c *net.TCPConn, at uint64) error {
	random := rand.New(rand.NewPCG(at, 2))
	for !x.done() {
		n := 1 + random.IntN(1<<random.IntN(17))
		if _, err := c.Write(x.piece(at, n)); err != nil {
			return err
		}
		at += uint64(n)
	}
	return c.CloseWrite()
}

// receive compares what arrives until the other end has ended.
func (x *exchange) receive(c *net.TCPConn, at uint64) error {
	buffer := make([]byte, 1<<16)
	for first := at; ; {
		n, err := c.Read(buffer)
		if !bytes.Equal(buffer[:n], x.piece(at, n)) {
			return fmt.Errorf("behind %d bytes, %d arrived that differ from what was sent", at-first, n)
		}
		at += uint64(n)
		x.received.Add(uint64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sockets makes sockets for flows of UDP to one at the far end.
func (x *exchange) sockets(w way) (near, far []*net.UDPConn, err error) {
	add := func(e end, port int, to *[]*net.UDPConn) error {
		return e.do(func() error {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: e.addr.AsSlice(), Port: port})
			if err != nil {
				return err
			}
			*to = append(*to, c)
			return c.SetReadBuffer(exchangeBuffer)
		})
	}
	err = add(w.to, w.port, &far)
	for range exchangeFlows {
		err = errors.Join(err, add(w.from, 0, &near))
	}
	return near, far, err
}

// datagram is that of a number: the number, and a piece.
func (x *exchange) datagram(number uint64) []byte {
	n := int(number * 2654435761 >> 7 % 1300)
	return append(binary.LittleEndian.AppendUint64(nil, number), x.piece(number*9973, n)...)
}

// check compares a datagram with what is sent under its number.
func (x *exchange) check(data []byte) (number uint64, err error) {
	if len(data) < 8 {
		return 0, fmt.Errorf("a datagram of %d bytes: none is so short", len(data))
	}
	number = binary.LittleEndian.Uint64(data)
	if !bytes.Equal(data, x.datagram(number)) {
		return 0, fmt.Errorf("datagram %#x of %d bytes differs from what was sent", number, len(data))
	}
	x.received.Add(uint64(len(data)))
	return number, nil
}

// answer sends back what arrives, until the socket is closed.
func (x *exchange) answer(c *net.UDPConn) error {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := x.check(buffer[:n]); err != nil {
			return err
		}
		if _, err := c.WriteToUDPAddrPort(buffer[:n], from); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

// ask sends datagrams from a number on, and waits for their answers.
func (x *exchange) ask(c *net.UDPConn, to *net.UDPAddr, number uint64) error {
	waiting := map[uint64]struct{}{}
	buffer := make([]byte, 1<<16)
	for !x.done() || len(waiting) > 0 {
		for len(waiting) < exchangeWindow && !x.done() {
			number++
			if _, err := c.WriteToUDP(x.datagram(number), to); err != nil {
				return err
			}
			waiting[number] = struct{}{}
		}
		if err := c.SetReadDeadline(time.Now().Add(exchangeAnswer)); err != nil {
			return err
		}
		n, _, err := c.ReadFromUDP(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.lost.Add(uint64(len(waiting)))
			clear(waiting)
			continue
		}
		if err != nil {
			return err
		}
		answer, err := x.check(buffer[:n])
		if err != nil {
			return err
		}
		if _, is := waiting[answer]; is { // else it is one that was taken for lost
			delete(waiting, answer)
			x.datagrams.Add(1)
		}
	}
	return nil
}
