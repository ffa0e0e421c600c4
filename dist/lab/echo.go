package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// The protocol of the echo servers, made for the prober in this package.
//
// UDP: the answer to a datagram is its first 8 bytes (what the prober knows it by), then the source address seen, as text.
//
// TCP: the prober sends bulk bytes, large enough to need full-sized segments both ways, so that a path which loses those
// (an MTU set too large) is found. The answer is as many bytes, beginning with the source address seen, as text and ended by
// a zero byte.
const bulk = 32 << 10

// EchoPort is the UDP and TCP port at which every [Endpoint] answers.
const EchoPort = 7070

// echoServer answers on the addresses of an endpoint. Each is bound by itself: an answer from a wildcard socket would carry
// whatever source address routing prefers.
type echoServer struct {
	closers []io.Closer
	ctx     context.Context // until close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func newEchoServer(do func(func() error) error, addrs [2]netip.Addr) (*echoServer, error) {
	s := &echoServer{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, addr := range addrs {
		if !addr.IsValid() {
			continue
		}
		if err := do(func() error { return s.listen(netip.AddrPortFrom(addr, EchoPort)) }); err != nil {
			s.close()
			return nil, fmt.Errorf("start the echo server: %w", err)
		}
	}
	return s, nil
}

func (s *echoServer) listen(addr netip.AddrPort) error {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, udp)
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, tcp)
	s.wg.Go(func() { serveUDP(udp) })
	s.wg.Go(func() { s.serveTCP(tcp) })
	return nil
}

// close ends the server and waits for its goroutines.
func (s *echoServer) close() {
	s.cancel()
	for _, c := range s.closers {
		c.Close()
	}
	s.wg.Wait()
}

func serveUDP(conn *net.UDPConn) {
	packet := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue // an ICMP error for an earlier answer
		}
		answer := from.Addr().Unmap().AppendTo(packet[:8])
		conn.WriteToUDPAddrPort(answer, from) // an answer that cannot be sent is one that is lost
	}
}

func (s *echoServer) serveTCP(listener *net.TCPListener) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })() // a prober may have gone away
			data := make([]byte, bulk)
			if _, err := io.ReadFull(conn, data); err != nil {
				return
			}
			clear(data)
			copy(data, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
			conn.Write(data)
		})
	}
}

// parseUDP reads a datagram of the server: the number it answers, and the source address seen.
func parseUDP(answer []byte) (number uint64, seen netip.Addr, err error) {
	if len(answer) < 8 {
		return 0, seen, fmt.Errorf("an answer of %d bytes, want more than 8", len(answer))
	}
	seen, err = netip.ParseAddr(string(answer[8:]))
	return binary.BigEndian.Uint64(answer), seen, err
}
