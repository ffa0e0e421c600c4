package bench

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

// TestIntegrity sends a little in two ways that have all there is between them.
func TestIntegrity(t *testing.T) {
	if !fastpath.Permitted() {
		return // in a user namespace there is no fast path: what follows is of it alone
	}
	b := pathBench(t)
	for _, c := range []integrityCase{
		{wire: true, service: true, noOffloads: true, description: "wire, Service, without offloads"},
		{family: subnet.IPv6, description: "whole, IPv6"},
	} {
		if err := b.integrityOf(t.Context(), c, 20e6); err != nil {
			t.Fatalf("%s: %v", c.description, err)
		}
	}
	if !b.report.Reached() || len(b.report.Figures) != 2 {
		t.Errorf("figures %+v", b.report.Figures)
	}
}

func TestIntegrityCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range integrityCases() {
		if seen[c.description] {
			t.Errorf("%q is there twice", c.description)
		}
		seen[c.description] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d cases, want 8 of IPv4 and 4 of IPv6", len(seen))
	}
}

// TestExchange: what arrives is counted, and a byte that differs is found.
func TestExchange(t *testing.T) {
	e := end{func(f func() error) error { return f() }, netip.MustParseAddr("127.0.0.1")}
	x := newExchange(1, 5e6)
	if err := x.run(t.Context(), way{name: "loopback", from: e, to: e}); err != nil {
		t.Fatal(err)
	}
	if x.received.Load() < x.size || x.datagrams.Load() == 0 {
		t.Errorf("%d bytes, %d datagrams", x.received.Load(), x.datagrams.Load())
	}

	d := x.datagram(7)
	if _, err := x.check(d); err != nil {
		t.Error(err)
	}
	for i := range d {
		d[i] ^= 1
		if _, err := x.check(d); err == nil {
			t.Errorf("a datagram passes whose byte %d differs", i)
		}
		d[i] ^= 1
	}
	for _, short := range [][]byte{nil, d[:7], d[:len(d)-1]} {
		if _, err := x.check(short); err == nil {
			t.Errorf("a datagram passes that was cut to %d bytes", len(short))
		}
	}

	streams, err := x.connect(way{from: e, to: e})
	if err != nil {
		t.Fatal(err)
	}
	for i, change := range []func([]byte){func([]byte) {}, func(b []byte) { b[999]++ }} {
		near, far := streams[2*i], streams[2*i+1]
		data := append([]byte{}, x.piece(5, 1000)...)
		change(data)
		if _, err := near.Write(data); err != nil {
			t.Fatal(err)
		}
		near.Close()
		err := x.receive(far, 5)
		if changed := i == 1; (err != nil && strings.Contains(err.Error(), "differ")) != changed {
			t.Errorf("changed %t: %v", changed, err)
		}
		far.Close()
	}
	for _, c := range streams[4:] {
		c.Close()
	}
}
