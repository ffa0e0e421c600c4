package vtepfilter

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/sandbox/sandboxtest"
)

const (
	port      = 8472 // VXLAN's
	otherPort = 9999
	patient   = 2 * time.Minute // the limit of any wait
)

// lab is a node between an underlay and a pod:
//
//	outside  192.0.2.2 .3 .4 ── up0 192.0.2.1  node  10.5.1.1 pods0 ── 10.5.1.2  pod
//	         10.5.2.2, a pod of another node
//
// The last number of an address is the same in IPv6. Everything listens to both ports on all addresses.
type lab struct {
	t                  testing.TB
	node, outside, pod *sandbox.Net
	filter             *Filter // in node

	mu       sync.Mutex
	received map[string]netip.Addr // sources by payload
	sent     int
}

// addresses are those of one family in a lab.
type addresses struct {
	family                        string
	bits, subnet                  int    // lengths of prefixes: a host's, a link's
	node, peer, stranger, allowed string // on the underlay
	forged                        string // of another peer, which the pod sends with
	gateway, pod, remotePod       string // in the overlay
	behind                        string // with the pod, but no address of the overlay
	underlay, overlay, wider      string // prefixes; the last one holds the overlay
	remoteSubnet, behindNet       string
	everywhere                    string
}

func bothFamilies() [2]addresses {
	return [2]addresses{{
		family: "IPv4", bits: 32, subnet: 24,
		node: "192.0.2.1", peer: "192.0.2.2", stranger: "192.0.2.3", allowed: "192.0.2.4", forged: "192.0.2.5",
		gateway: "10.5.1.1", pod: "10.5.1.2", remotePod: "10.5.2.2", behind: "198.51.100.2",
		underlay: "192.0.2.0/24", overlay: "10.5.0.0/16", wider: "10.0.0.0/8",
		remoteSubnet: "10.5.2.0/24", behindNet: "198.51.100.0/24", everywhere: "0.0.0.0/0",
	}, {
		family: "IPv6", bits: 128, subnet: 64,
		node: "2001:db8::1", peer: "2001:db8::2", stranger: "2001:db8::3", allowed: "2001:db8::4", forged: "2001:db8::5",
		gateway: "fd00:5:1::1", pod: "fd00:5:1::2", remotePod: "fd00:5:2::2", behind: "2001:db8:b::2",
		underlay: "2001:db8::/64", overlay: "fd00:5::/32", wider: "fd00::/8",
		remoteSubnet: "fd00:5:2::/48", behindNet: "2001:db8:b::/64", everywhere: "::/0",
	}}
}

// payloadVNI is the VNI of a packet with the payload that send sends: the bytes 4 to 6 of "packet 1".
const payloadVNI = 'e'<<16 | 't'<<8 | ' '

// config is what the node of a lab wants.
func config() Config {
	c := Config{Port: port, VNI: payloadVNI, Devices: []string{"flannel.1", "pods0"}}
	for _, a := range bothFamilies() {
		c.Networks = append(c.Networks, netip.MustParsePrefix(a.overlay))
	}
	return c
}

// peers are those of the node of a lab, in order.
func peers() (all []netip.Addr) {
	for _, a := range bothFamilies() {
		all = append(all, netip.MustParseAddr(a.peer), netip.MustParseAddr(a.forged))
	}
	return all
}

var newNet = sandboxtest.NewNet

// newFilter opens a filter in a namespace.
func newFilter(t testing.TB, ns *sandbox.Net) (f *Filter) {
	t.Helper()
	if err := ns.Do(func() (err error) { f, err = Open(Table); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, node: newNet(t), outside: newNet(t), pod: newNet(t), received: map[string]netip.Addr{}}
	var up, inPods, underlay, remotePods, pod, lo []string
	for _, a := range bothFamilies() {
		length := func(address string) string { return fmt.Sprintf("%s/%d", address, a.subnet) }
		up, inPods = append(up, length(a.node)), append(inPods, length(a.gateway))
		underlay = append(underlay, length(a.peer), length(a.stranger), length(a.allowed))
		pod = append(pod, length(a.pod))
		host := func(address string) string { return fmt.Sprintf("%s/%d", address, a.bits) }
		remotePods = append(remotePods, host(a.remotePod))
		lo = append(lo, host(a.forged), host(a.behind)) // a pod can take any address it likes
	}
	for _, ns := range []*sandbox.Net{l.node, l.outside, l.pod} {
		l.do(ns, sysctls)
	}
	l.do(l.node, func() error {
		for name, other := range map[string]*sandbox.Net{"up0": l.outside, "pods0": l.pod} {
			veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
			veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(other.Fd())
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
		}
		return firstError(linkUp("lo"), linkUp("up0", up...), linkUp("pods0", inPods...))
	})
	l.do(l.outside, func() error { return firstError(linkUp("lo", remotePods...), linkUp("eth0", underlay...)) })
	l.do(l.pod, func() error { return firstError(linkUp("lo", lo...), linkUp("eth0", pod...)) })
	for _, a := range bothFamilies() {
		l.do(l.pod, func() error { return route(a.everywhere, a.gateway) })
		l.do(l.outside, func() error { return route(a.overlay, a.node) })
		l.do(l.outside, func() error { return route(a.behindNet, a.node) })
		l.do(l.node, func() error { return route(a.remoteSubnet, a.peer) })
		l.do(l.node, func() error { return route(a.behindNet, a.pod) })
	}
	for _, ns := range []*sandbox.Net{l.node, l.outside, l.pod} {
		l.listen(ns, port)
		l.listen(ns, otherPort)
	}
	l.filter = newFilter(t, l.node)
	return l
}

func (l *lab) do(ns *sandbox.Net, f func() error) {
	l.t.Helper()
	if err := ns.Do(f); err != nil {
		l.t.Fatal(err)
	}
}

func firstError(errs ...error) error {
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
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
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
		addr.Flags = unix.IFA_F_NODAD
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

// ping is what is sent back by whoever gets it.
var ping = []byte("ping")

// listen notes what comes to a port, of either family, until the test ends.
func (l *lab) listen(ns *sandbox.Net, port int) {
	for _, network := range []string{"udp4", "udp6"} {
		var conn *net.UDPConn
		l.do(ns, func() (err error) { conn, err = net.ListenUDP(network, &net.UDPAddr{Port: port}); return err })
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 1<<16)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				payload, _, _ := bytes.Cut(b[:n], []byte{0})
				if bytes.Equal(payload, ping) {
					_, _ = conn.WriteToUDPAddrPort(payload, from)
					continue
				}
				l.mu.Lock()
				l.received[string(payload)] = from.Addr()
				l.mu.Unlock()
			}
		}()
		l.t.Cleanup(func() { conn.Close(); <-done })
	}
}

// What becomes of a packet.
type fate string

const (
	arrives  fate = "arrives"
	stranger fate = "dropped as a stranger's"
	aPods    fate = "dropped as a pod's"
)

// packet is a UDP packet; size is that of a payload of zeros behind what tells it from others.
type packet struct {
	ns       *sandbox.Net
	from, to string
	port     int
	size     int
	otherVNI bool // of another overlay
}

// send sends a packet and waits until it has met its fate: it arrives or a counter has counted it. With it comes the source
// that its receiver saw.
func (l *lab) send(p packet) (fate, netip.Addr) {
	l.t.Helper()
	l.sent++
	payload := fmt.Sprintf("packet %d", l.sent)
	if p.otherVNI {
		payload = strings.ToUpper(payload)
	}
	before, _ := l.filter.Dropped() // zero if there is no table
	l.do(p.ns, func() error {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(p.from)}, &net.UDPAddr{IP: net.ParseIP(p.to), Port: p.port})
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(append([]byte(payload), make([]byte, p.size)...))
		return err
	})
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		from, ok := l.received[payload]
		l.mu.Unlock()
		if ok {
			return arrives, from
		}
		switch now, _ := l.filter.Dropped(); {
		case now.Strangers > before.Strangers:
			return stranger, netip.Addr{}
		case now.Pods > before.Pods:
			return aPods, netip.Addr{}
		}
	}
	l.t.Fatalf("%+v neither arrives nor is counted as dropped", p)
	return "", netip.Addr{}
}

// ensure has the filter of the lab do what c says, with the given peers.
func (l *lab) ensure(c Config, peers []netip.Addr) (changed bool) {
	l.t.Helper()
	changed, err := l.filter.Ensure(c, slices.Values(peers))
	if err != nil {
		l.t.Fatal(err)
	}
	return changed
}

// test is a packet and what is to become of it.
type test struct {
	name string
	packet
	want fate
}

func (l *lab) test(tests ...test) {
	l.t.Helper()
	for _, tt := range tests {
		if got, _ := l.send(tt.packet); got != tt.want {
			l.t.Errorf("%s: %s, want: %s", tt.name, got, tt.want)
		}
	}
}

// whole checks that the filter works: a peer gets in and a stranger does not.
func (l *lab) whole() {
	l.t.Helper()
	for _, a := range bothFamilies() {
		l.test(
			test{a.family + ", a peer", packet{ns: l.outside, from: a.peer, to: a.node, port: port}, arrives},
			test{a.family + ", a stranger", packet{ns: l.outside, from: a.stranger, to: a.node, port: port}, stranger},
			test{a.family + ", a pod to a peer", packet{ns: l.pod, from: a.pod, to: a.peer, port: port}, aPods},
		)
	}
}
