package etcd

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
)

// connections are those that are open to etcd, and perhaps some that are closed already. They are handed out as they
// are, not wrapped: gRPC sets TCP_USER_TIMEOUT on a *net.TCPConn only.
type connections struct {
	mu   sync.Mutex
	open map[*net.TCPConn]struct{}
}

func (s *connections) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if raw, err := c.SyscallConn(); err != nil || raw.Control(func(uintptr) {}) != nil {
			delete(s.open, c) // closed by gRPC
		}
	}
	if c, ok := conn.(*net.TCPConn); ok {
		s.open[c] = struct{}{}
	}
	return conn, nil
}

// closeFrom closes the connections whose local address where picks.
func (s *connections) closeFrom(where func(netip.Addr) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok && where(a.AddrPort().Addr().Unmap()) {
			_ = c.Close() // gRPC sees it and connects again
		}
	}
}

// AddressesChanged implements [subnet.Networked].
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
	s.connections.closeFrom(func(a netip.Addr) bool { return !a.IsLoopback() && !ours[a] })
}

// Addresses implements [subnet.Networked].
func (s *Store) Addresses() (all []netip.Addr) {
	for _, e := range s.opts.Endpoints {
		u, err := url.Parse(e)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			all = append(all, a)
		}
	}
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	for c := range s.connections.open {
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			all = append(all, a.AddrPort().Addr().Unmap().WithZone(""))
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
