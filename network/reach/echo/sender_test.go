package echo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestSender: a request that is sent on a device leaves by it, without a route, with correct checksums, and its answer
// is reported.
func TestSender(t *testing.T) {
	ctx := testctx.New(t)
	link, tun := openTun(t)
	tunnel := link.Attrs().Index
	sender, err := OpenSender()
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	for _, f := range subnet.Families() {
		s, err := Open(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan answer, 10)
		var receiving sync.WaitGroup
		receiving.Go(func() {
			s.Receive(func(seq uint16, from netip.Addr, link int) {
				if link != tunnel {
					t.Errorf("the answer came by the interface %d, want %d", link, tunnel)
				}
				answers <- answer{seq, from}
			})
		})
		own := netip.MustParseAddr([...]string{"198.51.100.1", "2001:db8:2::1"}[f])
		a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, own.BitLen())), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Fatal(err)
		}
		testctx.Eventually(t, func() string { // the kernel makes the address usable on a work queue (addrconf_dad_work)
			routes, err := netlink.RouteGet(own.AsSlice())
			if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL {
				return fmt.Sprintf("%v, %v, want a local route", routes, err)
			}
			return ""
		})
		to, seq := netip.MustParseAddr([...]string{"203.0.113.7", "2001:db8:3::7"}[f]), uint16(65535)
		if err := sender.Send(s, link.Attrs().Index, own, to, 3, seq); err != nil {
			t.Fatal(err)
		}
		reply(t, tun, f, own, to)
		select {
		case a := <-answers:
			if a != (answer{seq, to}) {
				t.Errorf("%s: %v, want %d from %s", f, a, seq, to)
			}
		case <-ctx.Done():
			t.Fatalf("%s: no answer", f)
		}
		if err := sender.Send(s, 1<<20, own, to, 3, 1); !errors.Is(err, unix.ENXIO) {
			t.Errorf("%s: %v on a device that does not exist", f, err)
		}
		s.Close()
		receiving.Wait()
	}
}

// openTun makes a device without link-layer addresses. What is sent on it is read from the file.
func openTun(t *testing.T) (netlink.Link, *os.File) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "tun"
	link := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1,
		NonPersist: true}
	if err := errors.Join(netlink.LinkAdd(link), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { link.Fds[0].Close() })
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/tun/rp_filter", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	found, err := netlink.LinkByName("tun")
	if err != nil {
		t.Fatal(err)
	}
	return found, link.Fds[0]
}

// reply answers the next echo request of a family. Its addresses change places, which changes no checksum; that of the
// message is changed with its type (RFC 1624).
func reply(t *testing.T, tun *os.File, f subnet.Family, from, to netip.Addr) {
	t.Helper()
	const hopLimit = 3
	b := make([]byte, 1<<10)
	for {
		n, err := tun.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		header, size, hops := [...]int{header4, header6}[f], [...]int{4, 16}[f], [...]int{8, 7}[f]
		if p := b[:n]; n != header+icmpHeader || p[header] != [...]byte{request4, request6}[f] {
			continue // the kernel's own, such as router solicitations
		}
		src, dst, message := b[header-2*size:header-size], b[header-size:header], b[header:n]
		if string(src) != string(from.AsSlice()) || string(dst) != string(to.AsSlice()) || b[hops] != hopLimit {
			t.Fatalf("%s: % x, want from %s to %s with hop limit %d", f, b[:n], from, to, hopLimit)
		}
		copy(src, to.AsSlice())
		copy(dst, from.AsSlice())
		change := [...]uint32{request4<<8 - reply4<<8, (request6 + 0xff - reply6) << 8}[f]
		sum := uint32(binary.BigEndian.Uint16(message[2:])) + change
		if f == subnet.IPv6 {
			sum += 0xff
		}
		binary.BigEndian.PutUint16(message[2:], uint16(sum>>16+sum&0xffff))
		message[0] = [...]byte{reply4, reply6}[f]
		if _, err := tun.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		return
	}
}
