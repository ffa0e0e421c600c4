package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
)

// podOnEach adds a pod to each node.
func podOnEach(ctx context.Context, t *testing.T, l *lab.Lab) (pods []*lab.Endpoint) {
	t.Helper()
	for _, n := range l.Nodes() {
		p, err := l.AddPod(ctx, n, "")
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p.Endpoint)
	}
	return pods
}

// probeAll probes between all endpoints in each family that they have.
func probeAll(ctx context.Context, t *testing.T, l *lab.Lab, endpoints []*lab.Endpoint) {
	t.Helper()
	for _, f := range l.Families() {
		for _, r := range slices.Concat(l.MatrixFamily(ctx, f, endpoints)...) {
			if r.Err != nil {
				t.Errorf("%s -> %s over %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
	}
}

// longEnough is [lab.Lab.LongEnough] where the probe has to be answered.
func longEnough(ctx context.Context, t *testing.T, l *lab.Lab, from, to *lab.Endpoint) time.Duration {
	t.Helper()
	wait, err := l.LongEnough(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

// stream sends a datagram every 2 ms, in each family that both ends have, until end is called. A lost datagram fails the test.
func stream(ctx context.Context, t *testing.T, l *lab.Lab, from, to *lab.Endpoint) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		reports, err := l.StreamShared(ctx, from, to, 2*time.Millisecond)
		if err != nil {
			t.Error(err)
		}
		for _, r := range reports {
			if r.Lost > 0 || r.Sent == 0 {
				t.Errorf("%s -> %s over %s: %s, want none lost", from.Name(), to.Name(), r.Family, r)
			}
			t.Logf("%s -> %s over %s: %s", from.Name(), to.Name(), r.Family, r)
		}
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return end
}

// filterOf opens the filter of VXLAN packets of a node, to look at it.
func filterOf(t *testing.T, n *lab.Node) (f *vtepfilter.Filter) {
	t.Helper()
	if err := n.Do(func() (err error) { f, err = vtepfilter.Open(vtepfilter.Table); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// sinkPort is where a sink listens.
const sinkPort = 9000

// sink counts the datagrams that a pod gets, by what is in them.
type sink struct {
	mu       sync.Mutex
	received map[string]int
}

// listen starts a sink that ends with the test.
func listen(t *testing.T, pod *lab.Endpoint) *sink {
	t.Helper()
	return listenAt(t, pod.Do, netip.Addr{})
}

// listenAt starts a sink at one address of the namespaces that do leads to; the zero value stands for all.
func listenAt(t *testing.T, do func(func() error) error, at netip.Addr) *sink {
	t.Helper()
	s := &sink{received: map[string]int{}}
	var conn *net.UDPConn
	local := &net.UDPAddr{IP: at.AsSlice(), Port: sinkPort}
	if err := do(func() (err error) { conn, err = net.ListenUDP("udp", local); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.received[string(b[:n])]++
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

// await waits until a datagram has come once.
func (s *sink) await(ctx context.Context, t *testing.T, payload string) {
	t.Helper()
	waitFor(ctx, t, payload, func() error {
		if n := s.count(payload); n != 1 {
			return fmt.Errorf("%d arrived, want one", n)
		}
		return nil
	})
}

func (s *sink) count(payload string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[payload]
}

// here runs something in the lab process's own network namespace: a router on the underlay, and no node.
func here(fn func() error) error { return fn() }

// intruder sends forged VXLAN packets to a node.
type intruder struct {
	name string
	do   func(func() error) error // where it is
	from netip.Addr               // its address; the zero value: what the kernel chooses
}

// send sends a frame that is right in everything, if not in who sends it: it has the VNI and the MAC address of the node's
// device, and in it a datagram from a pod of another node to a pod of the node.
func (i intruder) send(t *testing.T, node *lab.Node, pod, other *lab.Endpoint, f subnet.Family, payload string) {
	t.Helper()
	const vni = 1
	var mac net.HardwareAddr
	err := node.Do(func() error {
		device, err := netlink.LinkByName([]string{subnet.IPv4: "flannel.1", subnet.IPv6: "flannel-v6.1"}[f])
		if err == nil {
			mac = device.Attrs().HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	packet := forge(vni, mac, netip.AddrPortFrom(other.Addr(f), sinkPort), netip.AddrPortFrom(pod.Addr(f), sinkPort), payload)
	err = i.do(func() error {
		var local *net.UDPAddr
		if i.from.IsValid() {
			local = &net.UDPAddr{IP: i.from.AsSlice()}
		}
		const port = 8472
		conn, err := net.DialUDP("udp", local, &net.UDPAddr{IP: node.Addr(f).AsSlice(), Port: port})
		if err != nil {
			return err
		}
		_, err = conn.Write(packet)
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		t.Fatalf("%s: %v", i.name, err)
	}
}

// forge returns what a peer would put into a UDP packet to the VXLAN port: the header of VXLAN (RFC 7348, section 5), then
// an Ethernet frame to mac with an IP packet, of whatever family the addresses are, with a UDP datagram.
func forge(vni uint32, mac net.HardwareAddr, from, to netip.AddrPort, payload string) []byte {
	const udp, hops = 17, 64
	datagram := binary.BigEndian.AppendUint16(nil, from.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, to.Port())
	datagram = binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload)))
	datagram = append(append(datagram, 0, 0), payload...)
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, udp}, datagram[4:6], datagram)
	binary.BigEndian.PutUint16(datagram[6:], checksum(pseudo))

	var etherType, header []byte
	length := binary.BigEndian.AppendUint16(nil, uint16(len(datagram)))
	if subnet.FamilyOf(to.Addr()) == subnet.IPv4 {
		length = binary.BigEndian.AppendUint16(nil, uint16(20+len(datagram)))
		etherType, header = []byte{8, 0}, slices.Concat([]byte{0x45, 0}, length, []byte{0, 0, 0, 0, hops, udp, 0, 0})
	} else {
		etherType, header = []byte{0x86, 0xdd}, slices.Concat([]byte{0x60, 0, 0, 0}, length, []byte{udp, hops})
	}
	header = slices.Concat(header, from.Addr().AsSlice(), to.Addr().AsSlice())
	if subnet.FamilyOf(to.Addr()) == subnet.IPv4 {
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	}
	const validVNI = 8 // the flag I
	vxlan := binary.BigEndian.AppendUint32([]byte{validVNI, 0, 0, 0}, vni<<8)
	anyMAC := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	return slices.Concat(vxlan, mac, anyMAC, etherType, header, datagram)
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// overlayOf lists what a node's kernel holds of the overlay, in all tables, but what comes and goes by itself.
func overlayOf(t *testing.T, n *lab.Node, filter *vtepfilter.Filter) (list []string) {
	t.Helper()
	add := func(kind string, what any) { list = append(list, fmt.Sprintf("%s %v", kind, what)) }
	err := n.Do(func() error {
		for _, link := range devices(t) {
			for _, r := range routesOf(t, link, unix.RT_TABLE_UNSPEC) {
				add("route", fmt.Sprintf("%s metric %d protocol %d", r, r.Priority, r.Protocol))
			}
			for _, f := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
				entries, err := netlink.NeighList(link.Attrs().Index, f)
				if err != nil {
					return err
				}
				for _, e := range entries {
					if e.State&netlink.NUD_PERMANENT != 0 {
						add("entry", fmt.Sprintf("%s dev %s", &e, link.Attrs().Name))
					}
				}
			}
		}
		request := nl.NewNetlinkRequest(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
		request.AddRawData(make([]byte, 8)) // struct nhmsg
		nexthops, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP)
		for _, x := range nexthops {
			add("nexthop", fmt.Sprintf("% x", x))
		}
		return err
	})
	peers, _, readErr := filter.Read()
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	for _, p := range peers {
		add("let in", p)
	}
	slices.Sort(list)
	return list
}

// devices returns the overlay's devices of the calling thread's namespace.
func devices(t *testing.T) (list []netlink.Link) {
	t.Helper()
	for _, name := range []string{"flannel.1", "flannel-v6.1"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		list = append(list, link)
	}
	return list
}

func routesOf(t *testing.T, link netlink.Link, table int) []netlink.Route {
	t.Helper()
	match := &netlink.Route{LinkIndex: link.Attrs().Index, Table: table}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, match, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Error(err)
	}
	return routes
}

// ipNet is a prefix in the form that netlink takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
