package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// host is a network namespace with entries.
type host struct {
	t    testing.TB
	ns   *sandbox.Net
	conn *Conn
}

func newHost(t testing.TB) *host {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, ns: ns}
	h.do(func() (err error) { h.conn, err = Dial(); return err })
	t.Cleanup(func() {
		if err := h.conn.Close(); err != nil {
			t.Error(err)
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.ns.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// add adds the entry of a UDP connection to a service, which has the endpoint.
func (h *host) add(source, service, endpoint string) {
	h.t.Helper()
	h.do(func() error { return create(unix.IPPROTO_UDP, source, service, endpoint) })
}

func create(protocol uint8, source, service, endpoint string) error {
	from, to := netip.MustParseAddrPort(source), netip.MustParseAddrPort(service)
	end := netip.MustParseAddrPort(endpoint)
	family := vishvananda.InetFamily(unix.AF_INET)
	if from.Addr().Is6() {
		family = unix.AF_INET6
	}
	tuple := func(from, to netip.AddrPort) vishvananda.IPTuple {
		return vishvananda.IPTuple{
			SrcIP: from.Addr().AsSlice(), SrcPort: from.Port(), DstIP: to.Addr().AsSlice(), DstPort: to.Port(),
			Protocol: protocol,
		}
	}
	return vishvananda.ConntrackCreate(vishvananda.ConntrackTable, family, &vishvananda.ConntrackFlow{
		FamilyType: uint8(family), Forward: tuple(from, to), Reverse: tuple(end, from), TimeOut: 1000,
	})
}

// of returns the entries of an address as "source destination endpoint".
func (h *host) of(a string) (all []string) {
	h.t.Helper()
	flows, err := h.conn.Of(netip.MustParseAddr(a))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range flows {
		if f.Protocol != unix.IPPROTO_UDP || f.ReplyDestination != f.Source {
			h.t.Errorf("read %+v", f)
		}
		all = append(all, fmt.Sprintf("%s %s %s", f.Source, f.Destination, f.ReplySource))
	}
	slices.Sort(all)
	return all
}

// TestOf lists the entries of pods: from it, to it, by a service, and to itself by a service.
func TestOf(t *testing.T) {
	h := newHost(t)
	for _, e := range [][3]string{
		{"10.5.1.2:4000", "10.5.2.2:53", "10.5.2.2:53"},
		{"10.5.1.2:4001", "10.96.0.1:53", "10.5.1.3:53"},
		{"10.5.1.2:4002", "10.96.0.2:53", "10.5.1.2:53"},
		{"10.5.2.2:4000", "10.5.1.2:53", "10.5.1.2:53"},
		{"[fd00:5:1::2]:4000", "[fd00:5:2::2]:53", "[fd00:5:2::2]:53"},
	} {
		h.add(e[0], e[1], e[2])
	}
	for _, tt := range []struct {
		addr string
		want []string
	}{
		{"10.5.1.2", []string{
			"10.5.1.2:4000 10.5.2.2:53 10.5.2.2:53", "10.5.1.2:4001 10.96.0.1:53 10.5.1.3:53",
			"10.5.1.2:4002 10.96.0.2:53 10.5.1.2:53", "10.5.2.2:4000 10.5.1.2:53 10.5.1.2:53",
		}},
		{"10.5.1.3", []string{"10.5.1.2:4001 10.96.0.1:53 10.5.1.3:53"}},
		{"10.96.0.1", nil},
		{"fd00:5:1::2", []string{"[fd00:5:1::2]:4000 [fd00:5:2::2]:53 [fd00:5:2::2]:53"}},
		{"fd00:5:2::2", []string{"[fd00:5:1::2]:4000 [fd00:5:2::2]:53 [fd00:5:2::2]:53"}},
		{"2001:db8::1", nil},
	} {
		if got := h.of(tt.addr); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.addr, got, tt.want)
		}
	}
}

// TestOfAny lists the entries of several pods, each once.
func TestOfAny(t *testing.T) {
	h := newHost(t)
	for _, e := range [][3]string{
		{"10.5.1.2:4000", "10.5.2.2:53", "10.5.2.2:53"},
		{"10.5.1.2:4001", "10.96.0.1:53", "10.5.1.3:53"},
		{"10.5.2.2:4000", "10.96.0.1:53", "10.5.1.3:53"},
		{"10.5.2.3:4000", "10.5.2.4:53", "10.5.2.4:53"},
		{"[fd00:5:1::2]:4000", "[fd00:5:2::2]:53", "[fd00:5:2::2]:53"},
		{"[fd00:5:1::3]:4000", "[fd00:5:2::2]:53", "[fd00:5:2::2]:53"},
	} {
		h.add(e[0], e[1], e[2])
	}
	for _, tt := range []struct {
		addresses, want string
	}{
		{"", ""},
		{"10.5.1.2 10.5.1.3", "10.5.1.2:4000 10.5.1.2:4001 10.5.2.2:4000"},
		{"10.5.2.4 fd00:5:1::2 10.5.2.2", "10.5.1.2:4000 10.5.2.2:4000 10.5.2.3:4000 [fd00:5:1::2]:4000"},
		{"10.96.0.1 fd00:5:2::2", "[fd00:5:1::2]:4000 [fd00:5:1::3]:4000"},
	} {
		addresses := map[netip.Addr]bool{}
		for _, a := range strings.Fields(tt.addresses) {
			addresses[netip.MustParseAddr(a)] = true
		}
		flows, err := h.conn.OfAny(addresses)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range flows {
			got = append(got, f.Source.String())
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.addresses, got, tt.want)
		}
	}
}

// TestDelete deletes one entry of each family and no other, and one that is gone.
func TestDelete(t *testing.T) {
	h := newHost(t)
	for _, f := range [][2]string{{"10.5.1.2", "10.5.2.2"}, {"fd00:5:1::2", "fd00:5:2::2"}} {
		pod, other := netip.MustParseAddr(f[0]), netip.AddrPortFrom(netip.MustParseAddr(f[1]), 53).String()
		first, second := netip.AddrPortFrom(pod, 4000).String(), netip.AddrPortFrom(pod, 4001).String()
		h.add(first, other, other)
		h.add(second, other, other)
		flows, err := h.conn.Of(pod)
		if err != nil || len(flows) != 2 {
			t.Fatal(flows, err)
		}
		i := slices.IndexFunc(flows, func(f Flow) bool { return f.Source.Port() == 4000 })
		for range 2 { // the second time it is gone
			if err := h.conn.Delete(flows[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.of(f[0]); !slices.Equal(got, []string{second + " " + other + " " + other}) {
			t.Errorf("left: %q", got)
		}
	}
}

// TestTolerate makes one TCP connection of each family liberal and no other. One that is gone is no error.
func TestTolerate(t *testing.T) {
	h := newHost(t)
	for _, f := range [][2]string{{"10.5.1.2", "10.5.2.2"}, {"fd00:5:1::2", "fd00:5:2::2"}} {
		pod, other := netip.MustParseAddr(f[0]), netip.AddrPortFrom(netip.MustParseAddr(f[1]), 80).String()
		list := func() (flows []Flow, liberal []uint16) {
			t.Helper()
			flows, err := h.conn.OfAny(map[netip.Addr]bool{pod: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range flows {
				if f.Liberal {
					liberal = append(liberal, f.Source.Port())
				}
			}
			return flows, liberal
		}
		for _, port := range []uint16{4000, 4001} {
			source := netip.AddrPortFrom(pod, port).String()
			h.do(func() error { return create(unix.IPPROTO_TCP, source, other, other) })
		}
		flows, liberal := list()
		if len(flows) != 2 || liberal != nil {
			t.Fatalf("%+v, of which are liberal: %d", flows, liberal)
		}
		one := flows[slices.IndexFunc(flows, func(f Flow) bool { return f.Source.Port() == 4000 })]
		h.must(h.conn.Tolerate(one))
		if flows, liberal = list(); len(flows) != 2 || !slices.Equal(liberal, []uint16{4000}) {
			t.Errorf("%+v, of which are liberal: %d, want 4000", flows, liberal)
		}
		h.must(h.conn.Delete(one))
		h.must(h.conn.Tolerate(one))
		if flows, liberal = list(); len(flows) != 1 || liberal != nil {
			t.Errorf("after one is gone: %+v, of which are liberal: %d", flows, liberal)
		}
	}
}

// TestNotPermitted lists and deletes without CAP_NET_ADMIN.
func TestNotPermitted(t *testing.T) {
	h := newHost(t)
	h.add("10.5.1.2:4000", "10.5.2.2:53", "10.5.2.2:53")
	flows, err := h.conn.Of(netip.MustParseAddr("10.5.1.2"))
	if err != nil || len(flows) != 1 {
		t.Fatal(flows, err)
	}
	err = h.ns.Do(func() error { // on a thread that ends with this
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		return h.conn.Delete(flows[0])
	})
	if err == nil {
		t.Error("an entry was deleted without permission")
	}
}

// FuzzDecode takes any bytes for an entry.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 128, 4, 0, 1, 128})
	f.Fuzz(func(t *testing.T, message []byte) {
		decode(message)
		mentions(message, nil)
	})
}

// BenchmarkOf lists 10 entries of an address among 50,000, here and with the library.
func BenchmarkOf(b *testing.B) {
	for _, f := range []struct {
		name, own, other, end string
		family                vishvananda.InetFamily
	}{
		{"IPv4", "10.6.0.1", "10.5.0.1", "10.7.0.1:53", unix.AF_INET},
		{"IPv6", "fd00:6::1", "fd00:5::1", "[fd00:7::1]:53", unix.AF_INET6},
	} {
		h := newHost(b)
		h.do(func() error {
			for i := range 50_000 {
				source := f.other
				if i%5000 == 0 {
					source = f.own
				}
				source = netip.AddrPortFrom(netip.MustParseAddr(source), uint16(10_000+i)).String()
				if err := create(unix.IPPROTO_UDP, source, f.end, f.end); err != nil {
					return err
				}
			}
			return nil
		})
		a := netip.MustParseAddr(f.own)
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if flows, err := h.conn.Of(a); err != nil || len(flows) != 10 {
					b.Fatal(len(flows), err)
				}
			}
		})
		b.Run(f.name+"/any", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if flows, err := h.conn.OfAny(map[netip.Addr]bool{a: true}); err != nil || len(flows) != 10 {
					b.Fatal(len(flows), err)
				}
			}
		})
		b.Run(f.name+"/library", func(b *testing.B) {
			b.ReportAllocs()
			h.do(func() error {
				for b.Loop() {
					flows, err := vishvananda.ConntrackTableList(vishvananda.ConntrackTable, f.family)
					if err != nil || len(flows) < 50_000 {
						return fmt.Errorf("%d, %w", len(flows), err)
					}
				}
				return nil
			})
		})
	}
}
