package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

const hostUplink = "uplink0"

// host is a Kernel that watches a namespace with an uplink and foreign objects.
type host struct {
	*Kernel
	ctx   context.Context
	woken chan struct{}
	round int
}

// onHost runs f on such a host with so many foreign routes.
func onHost(t testing.TB, routes int, f func(h *host) error) {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(func() error { return runHost(t.Context(), ns, routes, f) }); err != nil {
		t.Fatal(err)
	}
}

func runHost(ctx context.Context, ns *sandbox.Net, routes int, f func(h *host) error) (err error) {
	k, err := Open(network.NewTables())
	if err != nil {
		return err
	}
	defer k.Close()
	// Without duplicate address detection, no address of the uplink is reported seconds later.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0); err != nil {
		return err
	}
	uplink := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: hostUplink}}
	err = errors.Join(netlink.LinkAdd(uplink), netlink.LinkSetUp(uplink), addAddress(uplink, "192.0.2.1/24"))
	if err != nil {
		return err
	}
	if err := foreignRoutes(k, uplink.Index, routes); err != nil {
		return err
	}
	k.Uplink(hostUplink)
	k.Overlay([]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")})
	k.tables.Replace(network.Owner{Name: "node"}, network.State{}, network.State{
		Sysctls: []network.Item[string, network.Sysctl]{
			{Key: "net/ipv4/ip_forward", Value: "1"}, {Key: "net/ipv4/conf/" + hostUplink + "/forwarding", Value: "1"},
		},
	})
	ctx, cancel := context.WithCancel(ctx)
	h := &host{Kernel: k, ctx: ctx, woken: make(chan struct{}, 1)}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error {
			return k.Watch(ctx, func() { close(ready) }, func() {
				select {
				case h.woken <- struct{}{}:
				default:
				}
			})
		})
	}()
	defer func() { cancel(); err = errors.Join(err, <-done) }()
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		return err
	}
	if err := errors.Join(k.Read(), h.settle()); err != nil {
		return err
	}
	(&network.Reconciler{Tables: k.tables}).Pass(time.Now())
	return errors.Join(h.settle(), f(h))
}

// settle observes all notifications up to now: a device that is made for it is in the last of them.
func (h *host) settle() error {
	h.round++
	last := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("last%d", h.round)}}
	if err := netlink.LinkAdd(last); err != nil {
		return err
	}
	for {
		if err := h.Observe(); err != nil {
			return err
		}
		if _, there := h.byName[last.Name]; there {
			return netlink.LinkDel(last)
		}
		select {
		case <-h.woken:
		case <-h.ctx.Done():
			return h.ctx.Err()
		}
	}
}

// foreignRoutes adds so many static routes outside the overlay, as a router has them.
func foreignRoutes(k *Kernel, index, n int) error {
	var failed error
	for i := range n {
		key := network.RouteKey{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
		r := network.Route{Protocol: unix.RTPROT_BGP, Type: unix.RTN_UNICAST}
		k.batch.add(encodeRoute(k.batch.buf, unix.RTM_NEWROUTE, key, r, index), func(err error) { failed = err })
		if i%250 == 249 || i == n-1 {
			k.batch.send()
		}
	}
	return failed
}

func addAddress(link netlink.Link, cidr string) error {
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(cidr)), Flags: unix.IFA_F_NODAD})
}

func addRoute(link netlink.Link, cidr string) error {
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(cidr)), Scope: unix.RT_SCOPE_LINK})
}

// pod adds what another network's plugin adds for a pod.
func pod(i int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("pod%d", i)
	attrs.TxQLen = 0
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("peer%d", i)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, err
	}
	peer, err := netlink.LinkByName(veth.PeerName)
	if err != nil {
		return nil, err
	}
	a, b := byte(i>>8), byte(i)
	return veth, errors.Join(netlink.LinkSetUp(veth), netlink.LinkSetUp(peer),
		addAddress(veth, "10.9.0.1/32"), addAddress(veth, fmt.Sprintf("172.%d.%d.1/24", 16+a&3, b)),
		addAddress(veth, fmt.Sprintf("fd09:%x::1/64", i)),
		addRoute(veth, fmt.Sprintf("10.9.%d.%d/32", a, b)), addRoute(veth, fmt.Sprintf("fd0a:%x::/64", i)))
}

// TestForeignCostsNothing: what other networks on the node do reads nothing.
func TestForeignCostsNothing(t *testing.T) {
	onHost(t, 2000, func(h *host) error {
		var a, b netlink.Link
		for _, x := range []struct {
			name string
			most int // messages that the kernel may be asked for
			do   func() error
		}{
			{"a pod is added", 0, func() (err error) { a, err = pod(1); return err }},
			{"another one", 0, func() (err error) { b, err = pod(2); return err }},
			{"down and up", 0, func() error { return errors.Join(netlink.LinkSetDown(a), netlink.LinkSetUp(a)) }},
			{"renamed", 0, func() error {
				return errors.Join(netlink.LinkSetDown(b), netlink.LinkSetName(b, "other2"), netlink.LinkSetUp(b),
					addAddress(b, "172.20.2.1/24"), netlink.LinkSetName(b, "pod2"))
			}},
			{"an address is removed", 0, func() error {
				return netlink.AddrDel(a, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.9.0.1/32"))})
			}},
			{"both have the same subnet", 0, func() error {
				return errors.Join(addAddress(a, "10.77.0.1/16"), addAddress(b, "10.77.0.2/16"))
			}},
			{"the first of these is removed", 20, func() error { // the kernel's own routes, and no other
				return netlink.AddrDel(a, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.77.0.1/16"))})
			}},
			{"a bridge", 0, func() error {
				bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
				return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge), addAddress(bridge, "10.10.0.1/16"),
					netlink.LinkSetMaster(a, bridge), netlink.LinkSetNoMaster(a), netlink.LinkSetMaster(a, bridge))
			}},
			{"a default route in a table of its own, and a rule", 0, func() error {
				rule := netlink.NewRule()
				rule.Table, rule.Priority, rule.Src = 100, 1000, ipNet(netip.MustParsePrefix("10.9.0.1/32"))
				return errors.Join(netlink.RuleAdd(rule), netlink.RouteAdd(&netlink.Route{LinkIndex: b.Attrs().Index, Table: 100,
					Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Scope: unix.RT_SCOPE_LINK}))
			}},
			{"a setting", 0, func() error {
				return os.WriteFile("/proc/sys/net/ipv4/conf/pod2/forwarding", []byte("0"), 0)
			}},
			{"a route", 0, func() error { return addRoute(b, "10.11.12.0/24") }},
			{"both are deleted", 20, func() error { return errors.Join(netlink.LinkDel(a), netlink.LinkDel(b)) }},
		} {
			if err := h.settle(); err != nil {
				return err
			}
			h.UplinkStale()
			requests, answers := h.requests, h.answers
			if err := x.do(); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			if err := h.settle(); err != nil {
				return err
			}
			if asked, got := h.requests-requests, h.answers-answers; got > x.most || asked > 0 && x.most == 0 || h.UplinkStale() {
				t.Errorf("%s: %d requests with %d messages, want at most %d messages; uplink stale: %t",
					x.name, asked, got, x.most, h.UplinkStale())
			}
		}
		return nil
	})
}

// TestForeignRoutesAreKnown: what costs nothing is known nevertheless.
func TestForeignRoutesAreKnown(t *testing.T) {
	onHost(t, 100, func(h *host) error {
		a, err := pod(1)
		if err != nil {
			return err
		}
		b, err := pod(2)
		if err != nil {
			return err
		}
		route := func(p string) network.Change[network.Route] {
			prefix := netip.MustParsePrefix(p)
			return h.tables.Routes.Get(network.RouteKey{Prefix: prefix, Metric: 0})
		}
		for _, x := range []struct {
			name   string
			do     func() error
			prefix string
			want   string // the device; empty: there is no route
			others uint8
		}{
			{"connected", func() error { return addAddress(a, "10.77.0.1/16") }, "10.77.0.0/16", "pod1", 0},
			{"twice", func() error { return addAddress(b, "10.77.0.2/16") }, "10.77.0.0/16", "pod1", 1},
			{"the first is down", func() error { return netlink.LinkSetDown(a) }, "10.77.0.0/16", "pod2", 0},
			{"and up again", func() error { return netlink.LinkSetUp(a) }, "10.77.0.0/16", "pod2", 1},
			{"in the overlay", func() error { return addRoute(b, "10.5.9.0/25") }, "10.5.9.0/25", "pod2", 0},
			{"renamed", func() error { return netlink.LinkSetName(b, "other2") }, "10.5.9.0/25", "other2", 0},
			{"with its source", func() error {
				return netlink.RouteAdd(&netlink.Route{LinkIndex: b.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("10.5.9.128/25")),
					Src: netip.MustParseAddr("10.77.0.2").AsSlice(), Scope: unix.RT_SCOPE_LINK})
			}, "10.5.9.128/25", "other2", 0},
			{"without its source", func() error {
				return netlink.AddrDel(b, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.77.0.2/16"))})
			}, "10.5.9.128/25", "", 0},
			{"the other one", func() error { return nil }, "10.5.9.0/25", "other2", 0},
			{"deleted", func() error { return netlink.LinkDel(b) }, "10.5.9.0/25", "", 0},
			{"the first one", func() error { return nil }, "10.77.0.0/16", "pod1", 0},
			{"all deleted", func() error { return netlink.LinkDel(a) }, "10.77.0.0/16", "", 0},
		} {
			if err := x.do(); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			if err := h.settle(); err != nil {
				return err
			}
			got := route(x.prefix)
			if got.Present != (x.want != "") || got.Have.Link != x.want || got.Have.Others != x.others {
				t.Errorf("%s: %s: %+v, want %q and %d others", x.name, x.prefix, got, x.want, x.others)
			}
		}
		return nil
	})
}

// BenchmarkForeignPod is the cost of another network's pod, added and removed, in CPU time of this thread and of the
// watching one: what making it costs the kernel is subtracted.
func BenchmarkForeignPod(b *testing.B) {
	for _, x := range []struct{ routes, veths int }{{0, 0}, {1000, 0}, {100_000, 0}, {0, 1000}} {
		b.Run(fmt.Sprintf("routes=%d/veths=%d", x.routes, x.veths), func(b *testing.B) {
			onHost(b, x.routes, func(h *host) error {
				for i := range x.veths {
					attrs := netlink.LinkAttrs{Name: fmt.Sprintf("idle%d", i)}
					if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("eldi%d", i)}); err != nil {
						return err
					}
				}
				if err := h.settle(); err != nil {
					return err
				}
				runtime.GC()
				var spent time.Duration
				requests := h.requests
				for b.Loop() {
					link, err := pod(1)
					if err == nil {
						err = netlink.LinkDel(link)
					}
					if err != nil {
						return err
					}
					last := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "last"}}
					if err := netlink.LinkAdd(last); err != nil {
						return err
					}
					for there := false; !there; {
						<-h.woken
						before := threadCPU()
						if err := h.Observe(); err != nil {
							return err
						}
						h.UplinkStale()
						spent += threadCPU() - before
						_, there = h.byName["last"]
					}
					if err := netlink.LinkDel(last); err != nil {
						return err
					}
				}
				b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/pod")
				b.ReportMetric(float64(h.requests-requests)/float64(b.N), "reads/pod")
				return nil
			})
		})
	}
}

func threadCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u) // fails for a bad pointer only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
