package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses are where an agent listens.
type Addresses struct {
	Echo    string // TCP and UDP
	Control string // TCP; empty: nowhere
	Name    string // with which it answers; empty: the host's
}

// Sizes of datagrams, in bytes.
const (
	numberSize = 8       // of what a datagram begins with and is known by
	largest    = 1 << 16 // more than any has
)

// Serve answers callers until ctx ends. To a TCP connection it sends one line, an [Echo]. To a datagram it answers with
// the first eight bytes of it, an Echo, and as many blanks as make the answer as long as the question.
func Serve(ctx context.Context, a Addresses) error {
	name, err := a.Name, error(nil)
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	var lc net.ListenConfig
	udp, err := lc.ListenPacket(ctx, "udp", a.Echo)
	if err != nil {
		return err
	}
	defer udp.Close()
	if err := errors.Join(widen(udp.(*net.UDPConn)), neverFragmented(udp.(*net.UDPConn))); err != nil {
		return err
	}
	tcp, err := lc.Listen(ctx, "tcp", a.Echo)
	if err != nil {
		return err
	}
	defer tcp.Close()
	ctx, cancel := context.WithCancel(ctx)
	s := &server{ctx: ctx, name: name}
	failed := make(chan error, 3)
	go func() { failed <- s.echoDatagrams(udp.(*net.UDPConn)) }()
	go func() { failed <- s.accept(tcp, s.echo) }()
	if a.Control != "" {
		control, err := lc.Listen(ctx, "tcp", a.Control)
		if err != nil {
			cancel()
			return err
		}
		defer control.Close()
		go func() { failed <- s.accept(control, s.obey) }()
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	s.running.Wait()
	return err
}

type server struct {
	ctx     context.Context // of the streams
	name    string
	running sync.WaitGroup

	mu      sync.Mutex
	streams []*stream
}

// neverFragmented forbids fragments of a listening socket's answers. Without IPv6 in the kernel, the socket is of IPv4.
func neverFragmented(conn *net.UDPConn) error {
	return control(conn, func(fd int) error {
		if err := unfragmented(fd, false); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
		return unfragmented(fd, true)
	})
}

func (s *server) echoDatagrams(conn *net.UDPConn) error {
	packet := make([]byte, largest)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil || n < numberSize {
			continue // an ICMP error for an earlier answer, or nothing of ours
		}
		answer := fmt.Append(packet[:numberSize], Echo{Seen: from.Addr().Unmap(), By: s.name})
		if missing := n - len(answer); missing > 0 {
			answer = append(answer, bytes.Repeat([]byte{' '}, missing)...)
		}
		_, _ = conn.WriteToUDPAddrPort(answer, from) // an answer that cannot be sent is one that is lost
	}
}

func (s *server) accept(l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		s.running.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(requestTime)) // fails for a closed one only
			serve(conn)
		})
	}
}

func (s *server) echo(conn net.Conn) {
	if from, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		_, _ = fmt.Fprintln(conn, Echo{Seen: from.Addr().Unmap(), By: s.name}) // who asks sees that it got nothing
	}
}

func (s *server) obey(conn net.Conn) {
	var r Request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return // a probe of the kubelet's, which sends nothing
	}
	answer, err := s.do(r)
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(answer) // the same
}

func (s *server) do(r Request) (a Answer, err error) {
	switch {
	case r.Call != nil:
		echo, err := call(s.ctx, *r.Call)
		return Answer{Echo: &echo}, err
	case r.Stream != nil:
		return a, s.start(*r.Stream)
	case r.Report:
		return s.report()
	case r.Overflows:
		n, err := overflows()
		return Answer{Overflows: n}, err
	}
	return a, errors.New("an empty request")
}

func (s *server) start(to Stream) error {
	stream, err := newStream(to)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append(s.streams, stream)
	s.running.Go(func() { stream.run(s.ctx) })
	return nil
}

// report has all streams report at the same time: each waits for its last answers.
func (s *server) report() (a Answer, err error) {
	s.mu.Lock()
	streams := slices.Clone(s.streams)
	s.mu.Unlock()
	if len(streams) == 0 {
		return a, errors.New("no stream was started")
	}
	a.Losses = make([]Losses, len(streams))
	errs := make([]error, len(streams))
	var reports sync.WaitGroup
	for i, stream := range streams {
		reports.Go(func() { a.Losses[i], errs[i] = stream.report(s.ctx) })
	}
	reports.Wait()
	return a, errors.Join(errs...)
}
