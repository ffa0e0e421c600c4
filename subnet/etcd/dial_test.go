package etcd

import (
	"net"
	"net/netip"
	"testing"
)

// TestConnectionsAreClosedByLocalAddress: those from the address that is gone are closed, others are not, and closed ones
// are forgotten.
func TestConnectionsAreClosedByLocalAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &connections{open: map[*net.TCPConn]struct{}{}}
	dial := func() net.Conn {
		t.Helper()
		c, err := s.dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := dial()
	s.closeFrom(func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.1") })
	if _, err := first.Write([]byte("x")); err != nil {
		t.Errorf("a connection from another address was closed: %v", err)
	}
	s.closeFrom(func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") })
	if _, err := first.Write([]byte("x")); err == nil {
		t.Error("the connection from the address that is gone is still open")
	}
	second := dial()
	defer second.Close()
	if len(s.open) != 1 {
		t.Errorf("%d connections are kept, want the open one", len(s.open))
	}
}
