package filter

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// world is a node between an underlay, a pod, and a place that has nothing to do with the overlay:
//
//	near  192.0.2.2 ── up0 192.0.2.1  node  10.5.29.1 pods0 ── 10.5.29.2  pod
//	      10.5.30.2, 10.6.0.2: pods   │
//	      of another node             far0 198.51.100.1 ── 198.51.100.2  far
//
// The last number of an address is the same in IPv6. All but the node listen.
type world struct {
	*host
	near, far, pod *sandbox.Net
	mu             sync.Mutex
	received       map[string]netip.Addr // sources by payload
	sent           atomic.Int64
}

const (
	udpPort    = 9999
	markedPort = 9998 // what goes there has kube-proxy's mark
	patient    = 2 * time.Minute
)

// addresses are those of one family.
type addresses struct {
	node, gateway, outward    string // of the node, by device
	near, far, pod            string
	remote, remoteSecond      string // pods of another node, in either network
	remoteNets                []string
	everywhere                string
	host, upNet, farNet, pods int // lengths of prefixes
}

func bothFamilies() []addresses {
	return []addresses{
		{"192.0.2.1", "10.5.29.1", "198.51.100.1", "192.0.2.2", "198.51.100.2", "10.5.29.2", "10.5.30.2", "10.6.0.2",
			[]string{"10.5.30.0/24", "10.6.0.0/24"}, "0.0.0.0/0", 32, 24, 24, 24},
		{"2001:db8::1", "fd00:5:0:1d::1", "2001:db8:f::1", "2001:db8::2", "2001:db8:f::2", "fd00:5:0:1d::2", "fd00:5:0:1e::2", "fd00:6::2",
			[]string{"fd00:5:0:1e::/64", "fd00:6::/64"}, "::/0", 128, 64, 64, 64},
	}
}

// twoNetworks is a policy of the node of a world.
func twoNetworks(wish *bool) Policy {
	p := wishing(wish)
	p.Networks = append(p.Networks, prefixes("10.6.0.0/16", "fd00:6::/32")...)
	return p
}

func newWorld(t *testing.T, variant string) *world {
	t.Helper()
	w := &world{host: newHost(t, variant), received: map[string]netip.Addr{}}
	for _, ns := range []**sandbox.Net{&w.near, &w.far, &w.pod} {
		x, err := sandbox.NewNet()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		*ns = x
		w.in(x, sysctls)
	}
	w.do(sysctls)
	var up, far, pods, near, farther, pod, lo []string
	for _, a := range bothFamilies() {
		with := func(length int, list ...string) (all []string) {
			for _, x := range list {
				all = append(all, fmt.Sprintf("%s/%d", x, length))
			}
			return all
		}
		up, far, pods = append(up, with(a.upNet, a.node)...), append(far, with(a.farNet, a.outward)...), append(pods, with(a.pods, a.gateway)...)
		near, farther, pod = append(near, with(a.upNet, a.near)...), append(farther, with(a.farNet, a.far)...), append(pod, with(a.pods, a.pod)...)
		lo = append(lo, with(a.host, a.remote, a.remoteSecond)...)
	}
	w.do(func() error {
		for name, other := range map[string]*sandbox.Net{"up0": w.near, "far0": w.far, "pods0": w.pod} {
			veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
			veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(other.Fd())
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
		}
		return first(linkUp("up0", up...), linkUp("far0", far...), linkUp("pods0", pods...))
	})
	w.in(w.near, func() error { return first(linkUp("lo", lo...), linkUp("eth0", near...)) })
	w.in(w.far, func() error { return linkUp("eth0", farther...) })
	w.in(w.pod, func() error { return linkUp("eth0", pod...) })
	for _, a := range bothFamilies() {
		w.in(w.near, func() error { return route(a.everywhere, a.node) })
		w.in(w.far, func() error { return route(a.everywhere, a.outward) })
		w.in(w.pod, func() error { return route(a.everywhere, a.gateway) })
		for _, net := range a.remoteNets {
			w.do(func() error { return route(net, a.near) })
		}
	}
	for _, ns := range []*sandbox.Net{w.near, w.far, w.pod} {
		w.listen(ns, udpPort)
		w.listen(ns, markedPort)
	}
	// Somebody marks packets as kube-proxy does.
	table := w.AddTable(&nftables.Table{Name: "marks", Family: nftables.TableFamilyINet})
	w.Append(w.AddChain(&nftables.Chain{Table: table, Name: "prerouting", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle}),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(markedPort)},
		// With another bit besides.
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(0x4008)}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
	w.Commit()
	return w
}

func (w *world) in(ns *sandbox.Net, fn func() error) {
	w.t.Helper()
	if err := ns.Do(fn); err != nil {
		w.t.Fatal(err)
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sysctls makes a namespace forward packets, whatever their source, and use addresses at once.
func sysctls() error {
	for path, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func linkUp(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = 0x02 // IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s on %s: %w", a, name, err)
		}
	}
	return netlink.LinkSetUp(link)
}

func route(prefix, gateway string) error {
	p := netip.MustParsePrefix(prefix)
	r := &netlink.Route{Gw: net.ParseIP(gateway), Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route %s via %s: %w", prefix, gateway, err)
	}
	return nil
}

// listen notes what comes to a port, of either family, until the test ends.
func (w *world) listen(ns *sandbox.Net, port int) {
	for _, network := range []string{"udp4", "udp6"} {
		var conn *net.UDPConn
		w.in(ns, func() (err error) { conn, err = net.ListenUDP(network, &net.UDPAddr{Port: port}); return err })
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 1<<16)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				w.mu.Lock()
				w.received[string(b[:n])] = from.Addr()
				w.mu.Unlock()
			}
		}()
		w.t.Cleanup(func() { conn.Close(); <-done })
	}
}

// send sends a packet of a new connection and returns the source that its receiver saw.
func (w *world) send(do func(func() error) error, from, to string, port int) (netip.Addr, error) {
	payload := fmt.Sprintf("packet %d", w.sent.Add(1))
	err := do(func() error {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(payload))
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		source, ok := w.received[payload]
		w.mu.Unlock()
		if ok {
			return source, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("from %s to %s: nothing arrives", from, to)
}

// TestPackets sends packets from everywhere to everywhere, with rules kept by nftables and by either iptables.
func TestPackets(t *testing.T) {
	for _, kind := range []struct {
		variant string
		wish    *bool
	}{{"none", yes()}, {"nft", no()}, {"legacy", no()}} {
		t.Run(kind.variant, func(t *testing.T) {
			w := newWorld(t, kind.variant)
			w.ensure(twoNetworks(kind.wish))
			for _, a := range bothFamilies() {
				for _, tt := range []struct {
					what     string
					do       func(func() error) error
					from, to string
					port     int
					want     string
				}{
					{"a pod to outside", w.pod.Do, a.pod, a.far, udpPort, a.outward},
					{"a pod to the underlay", w.pod.Do, a.pod, a.near, udpPort, a.node},
					{"a pod to another node's pod", w.pod.Do, a.pod, a.remote, udpPort, a.pod},
					{"a pod to the other network", w.pod.Do, a.pod, a.remoteSecond, udpPort, a.pod},
					{"a pod to outside, marked by kube-proxy", w.pod.Do, a.pod, a.far, markedPort, a.pod},
					{"another node's pod to a pod", w.near.Do, a.remote, a.pod, udpPort, a.remote},
					{"the other network to a pod", w.near.Do, a.remoteSecond, a.pod, udpPort, a.remoteSecond},
					{"another node's pod to outside", w.near.Do, a.remote, a.far, udpPort, a.outward},
					{"outside to a pod", w.far.Do, a.far, a.pod, udpPort, a.far},
					{"outside to another node's pod", w.far.Do, a.far, a.remote, udpPort, a.node},
					{"outside to the other network", w.far.Do, a.far, a.remoteSecond, udpPort, a.node},
					{"outside to the underlay", w.far.Do, a.far, a.near, udpPort, a.far},
					{"the node to a pod", w.ns.Do, a.node, a.pod, udpPort, a.node},
					{"the node to another node's pod, by another address", w.ns.Do, a.outward, a.remote, udpPort, a.node},
					{"the node to outside", w.ns.Do, a.node, a.far, udpPort, a.node},
					{"the node as a pod to another node's pod", w.ns.Do, a.gateway, a.remote, udpPort, a.gateway},
				} {
					if got, err := w.send(tt.do, tt.from, tt.to, tt.port); err != nil || got != netip.MustParseAddr(tt.want) {
						t.Errorf("%s, from %s to %s: it comes from %s, want %s; %v", tt.what, tt.from, tt.to, got, tt.want, err)
					}
				}
			}
		})
	}
}

// TestNoGap opens connections as fast as it can while the mode changes: every one of them is masqueraded, and none is lost.
func TestNoGap(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			w := newWorld(t, variant)
			w.ensure(twoNetworks(yes()))
			stop, done := make(chan struct{}), make(chan struct{})
			var sources []netip.Addr
			a := bothFamilies()[0]
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
					}
					source, err := w.send(w.pod.Do, a.pod, a.far, udpPort)
					if err != nil {
						t.Error(err)
						return
					}
					sources = append(sources, source)
				}
			}()
			for n := range 10 {
				wish := yes()
				if n%2 == 0 {
					wish = no()
				}
				w.ensure(twoNetworks(wish))
			}
			close(stop)
			<-done
			if i := slices.IndexFunc(sources, func(s netip.Addr) bool { return s != netip.MustParseAddr(a.outward) }); i >= 0 {
				t.Errorf("connection %d of %d came from %s", i, len(sources), sources[i])
			}
			t.Logf("%d connections", len(sources))
		})
	}
}
