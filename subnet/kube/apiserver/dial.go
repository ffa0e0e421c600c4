package apiserver

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	// A connection on which nothing has arrived for so long is pinged, and closed if there is no answer: by HTTP/2
	// where the server has it, as all API servers do, else by TCP.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// connections are those that are open.
type connections struct {
	sent, received atomic.Uint64 // bytes, TLS included

	mu   sync.Mutex
	open map[*connection]struct{}
}

type connection struct {
	net.Conn
	of *connections
}

func newConnections() *connections { return &connections{open: map[*connection]struct{}{}} }

func (s *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: pingAfter, Interval: pingTimeout, Count: 2,
	}}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: raw, of: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	return c, nil
}

func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.of.received.Add(uint64(n))
	return n, err
}

func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.of.sent.Add(uint64(n))
	return n, err
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// closeFrom closes the connections whose local address where picks.
func (s *connections) closeFrom(where func(netip.Addr) bool) {
	s.mu.Lock()
	var picked []*connection
	for c := range s.open {
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok && where(a.AddrPort().Addr().Unmap().WithZone("")) {
			picked = append(picked, c)
		}
	}
	s.mu.Unlock()
	for _, c := range picked {
		_ = c.Close() // net/http sees it and connects again
	}
}

// closeAll closes all connections.
func (s *connections) closeAll() { s.closeFrom(func(netip.Addr) bool { return true }) }

// AddressesChanged says that this node's own addresses have changed: connections from an address that is gone are
// closed. TCP would find out much later.
func (c *Client) AddressesChanged() {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return // then the pings find out
	}
	ours := map[netip.Addr]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ours[ip.Unmap()] = true
			}
		}
	}
	c.connections.closeFrom(func(a netip.Addr) bool { return !a.IsLoopback() && !ours[a] })
}

// Addresses returns the addresses of the server, configured or connected to, sorted. Behind a proxy, the latter are the
// proxy's.
func (c *Client) Addresses() (all []netip.Addr) {
	if a, err := netip.ParseAddr(c.config.url.Hostname()); err == nil {
		all = append(all, a.Unmap().WithZone(""))
	}
	c.connections.mu.Lock()
	defer c.connections.mu.Unlock()
	for o := range c.connections.open {
		if a, ok := o.RemoteAddr().(*net.TCPAddr); ok {
			all = append(all, a.AddrPort().Addr().Unmap().WithZone(""))
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
