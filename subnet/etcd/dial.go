package etcd

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// connections are those that are open to etcd.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection is one that leaves the set when it is closed.
type connection struct {
	net.Conn
	of *connections
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (s *connections) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	return c, nil
}

// AddressesChanged closes the connections from addresses that this node no longer has, so that they are made anew at
// once. Nothing tells TCP that its address is gone: it would send into the void until it gives up, seconds later.
func (s *Store) AddressesChanged() {
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
	for _, c := range s.connections.from(func(a netip.Addr) bool { return !a.IsLoopback() && !ours[a] }) {
		_ = c.Close() // gRPC sees it and connects again
	}
}

// from returns the open connections whose local address where picks.
func (s *connections) from(where func(netip.Addr) bool) (found []*connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok && where(a.AddrPort().Addr().Unmap()) {
			found = append(found, c)
		}
	}
	return found
}
