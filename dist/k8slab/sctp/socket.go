package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// SCTPAddr is an address and port of an SCTP endpoint.
type SCTPAddr struct {
	IP   netip.Addr
	Port int
}

// Network returns "sctp".
func (a *SCTPAddr) Network() string { return "sctp" }

// String returns the address as net.JoinHostPort does.
func (a *SCTPAddr) String() string { return net.JoinHostPort(a.IP.String(), strconv.Itoa(a.Port)) }

// ResolveSCTPAddr resolves host:port, of which the host can be empty. The network is "sctp".
func ResolveSCTPAddr(_, address string) (*SCTPAddr, error) {
	a, err := net.ResolveUDPAddr("udp", address) // by the same rules
	if err != nil {
		return nil, err
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		addr = netip.IPv4Unspecified()
	}
	return &SCTPAddr{IP: addr.Unmap(), Port: a.Port}, nil
}

// rawNetwork is the network of a raw socket for SCTP, which is protocol 132.
func rawNetwork(a netip.Addr) string {
	if a.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

// DialSCTP sets up an association. The network is "sctp"; local is not used.
func DialSCTP(_ string, _, remote *SCTPAddr) (*SCTPConn, error) {
	raw, err := net.DialIP(rawNetwork(remote.IP), nil, &net.IPAddr{IP: remote.IP.AsSlice(), Zone: remote.IP.Zone()})
	if err != nil {
		return nil, err
	}
	c := newConn(func(p packet) error { _, err := raw.Write(p.marshal()); return err },
		uint16(32768+rand.IntN(28232)), remote)
	c.free = func() { _ = raw.Close() }
	go func() {
		for b := make([]byte, 65536); ; {
			n, _, err := raw.ReadFromIP(b) // without the header of IPv4
			if err != nil {                // ICMP errors among others
				c.problem <- err
				c.end()
				return
			}
			p, err := parse(b[:n])
			if err == nil && p.from == uint16(remote.Port) && p.to == c.local && p.tag == c.own.tag {
				c.handle(p)
			}
		}
	}()
	if err := c.connect(); err != nil {
		c.end()
		return nil, fmt.Errorf("dial %s: %w", remote, err)
	}
	return c, nil
}

// SCTPListener accepts associations.
type SCTPListener struct {
	port   uint16
	raw    []*net.IPConn
	accept chan *SCTPConn
	done   chan struct{}
	close  sync.Once

	mu    sync.Mutex
	conns map[SCTPAddr]*SCTPConn
}

// ListenSCTP listens at an address. The network is "sctp"; the unspecified address of either family means all addresses
// of both.
func ListenSCTP(_ string, local *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{
		port: uint16(local.Port), accept: make(chan *SCTPConn, 16), done: make(chan struct{}),
		conns: map[SCTPAddr]*SCTPConn{},
	}
	at := []netip.Addr{local.IP}
	if local.IP.IsUnspecified() {
		at = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, a := range at {
		raw, err := net.ListenIP(rawNetwork(a), &net.IPAddr{IP: a.AsSlice(), Zone: a.Zone()})
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.raw = append(l.raw, raw)
	}
	for _, raw := range l.raw {
		go l.serve(raw)
	}
	return l, nil
}

func (l *SCTPListener) serve(raw *net.IPConn) {
	for b := make([]byte, 65536); ; {
		n, from, err := raw.ReadFromIP(b)
		if err != nil {
			select {
			case <-l.done:
				return
			default:
				continue
			}
		}
		addr, ok := netip.AddrFromSlice(from.IP)
		if p, err := parse(b[:n]); ok && err == nil && p.to == l.port {
			l.handle(raw, from, SCTPAddr{IP: addr.Unmap(), Port: int(p.from)}, p)
		}
	}
}

// cookie is what INIT ACK gives to the peer, and COOKIE ECHO brings back: both ends' tags and TSNs.
type cookie [16]byte

func (l *SCTPListener) handle(raw *net.IPConn, to *net.IPAddr, from SCTPAddr, p packet) {
	answer := func(p packet) error { _, err := raw.WriteToIP(p.marshal(), to); return err }
	switch p.kind {
	case typeInit:
		theirs, err := parseStart(p.value)
		if err != nil {
			return
		}
		own := start{tag: rand.Uint32() | 1, tsn: rand.Uint32()}
		for _, n := range []uint32{own.tag, own.tsn, theirs.tag, theirs.tsn} {
			own.cookie = binary.BigEndian.AppendUint32(own.cookie, n)
		}
		_ = answer(packet{from: l.port, to: p.from, tag: theirs.tag, kind: typeInitAck, value: own.marshal()})
	case typeCookieEcho:
		if len(p.value) == len(cookie{}) {
			l.establish(answer, from, p)
		}
	default:
		l.mu.Lock()
		c := l.conns[from]
		l.mu.Unlock()
		if c != nil && p.tag == c.own.tag {
			c.handle(p)
		}
	}
}

// establish makes an association of a cookie, or answers again if there is one.
func (l *SCTPListener) establish(answer func(packet) error, from SCTPAddr, p packet) {
	var n [4]uint32
	for i := range n {
		n[i] = binary.BigEndian.Uint32(p.value[4*i:])
	}
	if p.tag != n[0] {
		return
	}
	l.mu.Lock()
	c := l.conns[from]
	fresh := c == nil || c.own.tag != n[0]
	if fresh {
		c = newConn(answer, l.port, &from)
		c.own, c.theirs = start{tag: n[0], tsn: n[1]}, start{tag: n[2], tsn: n[3]}
		c.free = func() { l.forget(from, c) }
	}
	l.conns[from] = c
	l.mu.Unlock()
	_ = c.transmit(typeCookieAck, 0, nil)
	if fresh {
		select {
		case l.accept <- c:
		case <-l.done:
		}
	}
}

func (l *SCTPListener) forget(from SCTPAddr, c *SCTPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[from] == c {
		delete(l.conns, from)
	}
}

// AcceptSCTP waits for an association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener. Its associations cannot be used any more.
func (l *SCTPListener) Close() (err error) {
	l.close.Do(func() {
		close(l.done)
		for _, raw := range l.raw {
			err = errors.Join(err, raw.Close())
		}
	})
	return err
}
