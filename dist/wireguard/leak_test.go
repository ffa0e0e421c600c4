package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// marker is in every datagram between pods that a capture looks for.
var marker = []byte("what only the other pod may read")

// capture counts packets on the uplinks of all nodes: those in which the marker can be read, and all.
type capture struct {
	plain, all atomic.Int64
	first      atomic.Pointer[[]byte] // the first one with the marker
	stop       func()
}

// capture starts a capture. It ends with the test, which fails if the kernel has left packets out of it.
func (c *cluster) capture(t *testing.T) *capture {
	t.Helper()
	const all = unix.ETH_P_ALL
	const protocol = all<<8&0xff00 | all>>8
	x := &capture{}
	var running sync.WaitGroup
	var ended atomic.Bool
	var sockets []int
	for _, n := range c.Nodes() {
		link, err := net.InterfaceByName(n.Name())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000}),
				unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}),
			)
		}
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, fd)
		running.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := unix.Read(fd, buf)
				if err != nil && ended.Load() {
					return
				}
				if err != nil {
					continue
				}
				x.all.Add(1)
				if bytes.Contains(buf[:n], marker) {
					p := bytes.Clone(buf[:n])
					x.first.CompareAndSwap(nil, &p)
					x.plain.Add(1)
				}
			}
		})
	}
	x.stop = sync.OnceFunc(func() {
		ended.Store(true)
		running.Wait()
		for _, fd := range sockets {
			s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err = errors.Join(err, unix.Close(fd)); err != nil || s.Drops > 0 {
				t.Errorf("%v: the capture has left out packets: %+v", err, s)
			}
		}
	})
	t.Cleanup(x.stop)
	return x
}

// mark sends datagrams with the marker between the pods, both ways and in all families, whether they arrive or not,
// until the test ends. sent counts them.
func (c *cluster) mark(t *testing.T) (sent *atomic.Int64) {
	t.Helper()
	sent = &atomic.Int64{}
	ctx, cancel := context.WithCancel(c.ctx)
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for i, from := range c.pods {
		for _, f := range c.families {
			to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.pods[1-i].Addr(f), 9))
			var conn *net.UDPConn
			err := from.Do(func() (err error) { conn, err = net.ListenUDP("udp", nil); return err })
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() {
				defer conn.Close()
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
					if _, err := conn.WriteToUDP(marker, to); err == nil {
						sent.Add(1)
					}
				}
			})
		}
	}
	return sent
}

// pass waits until some more datagrams with the marker have been sent.
func pass(t *testing.T, sent *atomic.Int64) {
	t.Helper()
	const some = 50
	before := sent.Load()
	testctx.Eventually(t, func() string {
		if n := sent.Load() - before; n < some {
			return fmt.Sprintf("%d datagrams sent, want %d", n, some)
		}
		return ""
	})
}

// TestCaptureSees: with VXLAN, the capture that the other tests rely on sees what pods send.
func TestCaptureSees(t *testing.T) {
	c := open(t, lab.Options{Families: families(subnet.IPv4, subnet.IPv6)})
	c.begin(t, vxlanBackend)
	x := c.capture(t)
	c.mark(t)
	testctx.Eventually(t, func() string {
		if x.plain.Load() == 0 {
			return fmt.Sprintf("no packet of %d has the marker", x.all.Load())
		}
		return ""
	})
}

// TestNoPlaintext: whatever happens to devices, peers, routes, leases and the daemon, no packet between pods can be read
// on the underlay.
func TestNoPlaintext(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4, subnet.IPv6), wireguardBackend)
	c.probe(t)
	n, names := c.Nodes()[0], []string{"flannel-wg", "flannel-wg-v6"}
	x := c.capture(t)
	sent := c.mark(t)
	each := func(f func(netlink.Link) error) {
		t.Helper()
		c.do(t, n, func() (err error) {
			for _, name := range names {
				link, missing := netlink.LinkByName(name)
				err = errors.Join(err, missing)
				if missing == nil {
					err = errors.Join(err, f(link))
				}
			}
			return err
		})
	}
	remove := func() { t.Helper(); each(netlink.LinkDel); pass(t, sent) }
	start := func() {
		t.Helper()
		if err := errors.Join(n.Start(), n.WaitReady(c.ctx)); err != nil {
			t.Fatal(err)
		}
	}
	down := func() { t.Helper(); each(netlink.LinkSetDown) }
	stranger := newKey(t)
	for _, fault := range []struct {
		name  string
		apply func()
	}{
		{"nothing", func() {}},
		{"daemon restarted", func() {
			if err := errors.Join(n.Restart(c.ctx), n.WaitReady(c.ctx)); err != nil {
				t.Fatal(err)
			}
		}},
		{"daemon killed", func() { n.Kill(); pass(t, sent); start() }},
		{"device down", down},
		{"device down while no daemon runs", func() { n.Kill(); down(); pass(t, sent); start() }},
		{"device deleted", remove},
		{"device deleted while no daemon runs", func() { n.Kill(); remove(); start() }},
		{"routes deleted", func() {
			each(func(link netlink.Link) error {
				routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
				for _, r := range routes {
					if r.Protocol != unix.RTPROT_KERNEL {
						err = errors.Join(err, netlink.RouteDel(&r))
					}
				}
				return err
			})
		}},
		{"peers removed", func() {
			for _, name := range names {
				c.configure(t, n, name, wgtypes.Config{ReplacePeers: true})
			}
		}},
		{"private key changed", func() {
			for _, name := range names {
				c.configure(t, n, name, wgtypes.Config{PrivateKey: &stranger})
			}
		}},
		{"peer gone for good", func() {
			other := c.Nodes()[1]
			other.Kill()
			leases, err := c.Store().Leases(c.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Store().DeleteLeases(c.ctx, leases[1:]); err != nil {
				t.Fatal(err)
			}
			testctx.Eventually(t, func() string {
				d, err := c.device(n, names[0])
				if err != nil || len(d.Peers) > 0 {
					return fmt.Sprintf("%+v, %v, want no peers", d, err)
				}
				return ""
			})
			pass(t, sent)
			if err := errors.Join(other.Start(), other.WaitReady(c.ctx)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			fault.apply()
			pass(t, sent)
			c.recover(t)
			if n := x.plain.Load(); n > 0 {
				t.Fatalf("%d packets on the underlay can be read, the first one: % x", n, *x.first.Load())
			}
		})
	}
}

// recover waits until the pods reach each other again, both ways and in all families.
func (c *cluster) recover(t *testing.T) {
	t.Helper()
	for _, ends := range [][2]*lab.Pod{{c.pods[0], c.pods[1]}, {c.pods[1], c.pods[0]}} {
		for _, f := range c.families {
			testctx.Eventually(t, func() string {
				if r := c.ProbeFamily(c.ctx, f, ends[0].Endpoint, ends[1].Endpoint); r.Err != nil {
					return fmt.Sprintf("%s to %s, %s: %v", r.From, r.To, r.Family, r.Err)
				}
				return ""
			})
		}
	}
}
