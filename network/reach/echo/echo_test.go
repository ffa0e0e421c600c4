package echo

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// answer is what Receive reports.
type answer struct {
	seq  uint16
	from netip.Addr
}

func TestSocket(t *testing.T) {
	ctx := testctx.New(t)
	for _, f := range subnet.Families() {
		s, err := Open(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Open(ctx, f) // whose answers are not ours
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan answer, 10)
		var receiving sync.WaitGroup
		receiving.Go(func() { s.Receive(func(seq uint16, from netip.Addr, _ int) { answers <- answer{seq, from} }) })
		lo := [...]string{"127.0.0.1", "::1"}[f]
		for i, hops := range []int{0, 1} {
			to, seq := netip.MustParseAddr(lo), uint16(65535-i)
			if err := errors.Join(second.Send(to, hops, seq), s.Send(to, hops, seq)); err != nil {
				t.Fatal(err)
			}
			select {
			case a := <-answers:
				if a != (answer{seq, to}) {
					t.Errorf("%s: %v, want %d from %s", f, a, seq, to)
				}
			case <-ctx.Done():
				t.Fatalf("%s: no answer", f)
			}
		}
		nowhere := netip.MustParseAddr([...]string{"192.0.2.1", "2001:db8::1"}[f])
		if err := s.Send(nowhere, 0, 1); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s: %v without a route", f, err)
		}
		second.Close()
		s.Close()
		receiving.Wait()
	}
}

// TestHops: a router answers that the hop limit is exceeded.
func TestHops(t *testing.T) {
	ctx := testctx.New(t)
	router, err := sandbox.NewHost("router")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Close() })
	connect(t, router)
	for _, f := range subnet.Families() {
		s, err := Open(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan answer, 10)
		var receiving sync.WaitGroup
		receiving.Go(func() { s.Receive(func(seq uint16, from netip.Addr, _ int) { answers <- answer{seq, from} }) })
		want := answer{7, addresses()[f][1].Addr()}
		if err := s.Send(behind()[f].Addr().Next(), 1, 7); err != nil {
			t.Fatal(err)
		}
		select {
		case a := <-answers:
			if a != want {
				t.Errorf("%s: %v, want %v", f, a, want)
			}
		case <-ctx.Done():
			t.Fatalf("%s: no answer", f)
		}
		s.Close()
		receiving.Wait()
	}
}

// addresses returns those of this end of a link and of the router's, by family.
func addresses() [2][2]netip.Prefix {
	p := netip.MustParsePrefix
	return [2][2]netip.Prefix{{p("192.0.2.1/30"), p("192.0.2.2/30")}, {p("2001:db8::1/64"), p("2001:db8::2/64")}}
}

// behind returns networks behind the router, by family.
func behind() [2]netip.Prefix {
	return [2]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
}

// connect connects the namespace to a router by a veth pair.
func connect(t *testing.T, router *sandbox.Host) {
	t.Helper()
	var ns int
	err := router.Do(func() (err error) {
		ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: "near"})
	veth.PeerName, veth.PeerNamespace = "far", netlink.NsFd(ns)
	end := func(name string, i int) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		err = netlink.LinkSetUp(link)
		for _, f := range subnet.Families() {
			a := &netlink.Addr{IPNet: ipNet(addresses()[f][i]), Flags: unix.IFA_F_NODAD}
			err = errors.Join(err, netlink.AddrAdd(link, a))
		}
		return err
	}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	err = router.Do(func() error {
		return errors.Join(end("far", 1), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
	})
	if err := errors.Join(err, end("near", 0)); err != nil {
		t.Fatal(err)
	}
	for _, f := range subnet.Families() {
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(behind()[f]), Gw: addresses()[f][1].Addr().AsSlice()}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNotPermitted(t *testing.T) {
	var header unix.CapUserHeader
	header.Version = unix.LINUX_CAPABILITY_VERSION_3
	var all, none [2]unix.CapUserData
	done := make(chan error)
	go func() { // whose thread ends with it
		runtime.LockOSThread()
		if err := unix.Capget(&header, &all[0]); err != nil {
			done <- err
			return
		}
		none = all
		none[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		_, err := Open(context.Background(), subnet.IPv4)
		done <- err
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "needs CAP_NET_RAW") {
		t.Errorf("%v without CAP_NET_RAW", err)
	}
}

// TestDecode: what is truncated, or not an answer, is none.
func TestDecode(t *testing.T) {
	for _, f := range subnet.Families() {
		request := encode(f, 0xabcd, 7)
		reply := append([]byte{}, request...)
		reply[0] = [...]byte{reply4, reply6}[f]
		if id, seq, ok := decode(f, reply); id != 0xabcd || seq != 7 || !ok {
			t.Errorf("%s: %x %d %t", f, id, seq, ok)
		}
		if _, _, ok := decode(f, request); ok {
			t.Errorf("%s: a request is an answer", f)
		}
		packet := append(make([]byte, [...]int{header4, header6}[f]), request...)
		packet[0] = [...]byte{0x45, 0x60}[f]
		packet[[...]int{9, 6}[f]] = [...]byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}[f]
		failed := append([]byte{[...]byte{exceeded4, exceeded6}[f], 0, 0, 0, 0, 0, 0, 0}, packet...)
		if id, seq, ok := decode(f, failed); id != 0xabcd || seq != 7 || !ok {
			t.Errorf("%s: %x %d %t", f, id, seq, ok)
		}
		for i := range failed {
			if _, _, ok := decode(f, failed[:i]); ok {
				t.Errorf("%s: %d bytes are enough", f, i)
			}
		}
	}
	var sum uint32
	for b := encode(subnet.IPv4, 0xffff, 0xffff); len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if sum>>16+sum&0xffff != 0xffff {
		t.Errorf("checksum %x", sum)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
