package enforce

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
)

const (
	thisNode = "n1"
	patient  = 2 * time.Minute // the limit of any wait
)

// lab is a node: a bridge with ports of pods, and a link to all the rest. The other ends of all links are in one
// namespace without any address, where packets are made and received as frames:
//
//	pods    eth0 … eth7 ── port0 … port7  bridge pods0 10.0.0.254  node  up0 192.0.2.254 ── rest
//	10.0.0.1 … 10.0.0.8                                                           192.0.2.1, all else
//	fd00::1 … fd00::8                     fd00::fe                2001:db8::fe    2001:db8::1, all else
//
// So a packet arrives or is dropped before the call that sends it returns, or at the latest before the next one that is
// sent arrives: all are sent by one thread on one CPU, whose queue is in order.
type lab struct {
	t        testing.TB
	ends     *sandbox.Net
	socket   int            // of packets, in ends
	indexes  map[string]int // of the devices in ends
	names    map[int]string
	gateway  map[string]net.HardwareAddr // the node's, by the device in ends
	received map[uint32]string           // the device in ends that a probe came to, by its number
	answers  map[string]int              // resets and ICMP errors, by the device in ends that they came to
	last     uint32                      // the number of the last probe
	do       chan func()
}

const ports = 8

func portName(i int) string { return fmt.Sprint("port", i) }
func endName(i int) string  { return fmt.Sprint("eth", i) }

// mac returns the address of a device in ends; that of the rest is the last.
func mac(i int) net.HardwareAddr { return net.HardwareAddr{0x0a, 0, 0, 0, 0, byte(i)} }

const rest = "rest"

func newLab(t testing.TB) *lab {
	t.Helper()
	ends, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, ends: ends, indexes: map[string]int{}, names: map[int]string{}, gateway: map[string]net.HardwareAddr{},
		received: map[uint32]string{}, answers: map[string]int{}, do: make(chan func())}
	t.Cleanup(func() {
		clearTables(t)
		for i := range ports {
			l.remove(portName(i))
		}
		l.remove("pods0")
		l.remove("up0")
		if err := ends.Close(); err != nil {
			t.Error(err)
		}
	})
	l.must(ends.Do(func() error { return write(map[string]string{"ipv6/conf/default/disable_ipv6": "1"}) }))
	l.must(write(map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0",
		"ipv4/conf/default/rp_filter": "0", "ipv6/conf/default/accept_dad": "0", "ipv4/icmp_ratelimit": "0",
		"bridge/bridge-nf-call-iptables": "1", "bridge/bridge-nf-call-ip6tables": "1",
	}))
	// With an address of its own, or it changes with its ports, and the kernel forgets its neighbours.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "pods0", HardwareAddr: mac(0xfe)}}
	l.must(netlink.LinkAdd(bridge))
	l.up("pods0", "10.0.0.254/24", "fd00::fe/64")
	for i := range ports {
		l.veth(portName(i), endName(i), mac(i))
		port, err := netlink.LinkByName(portName(i))
		l.must(err)
		l.must(netlink.LinkSetMaster(port, bridge))
		l.neighbour("pods0", podAddress(i, false), mac(i))
		l.neighbour("pods0", podAddress(i, true), mac(i))
	}
	l.veth("up0", rest, mac(ports))
	l.up("up0", "192.0.2.254/24", "2001:db8::fe/64")
	for _, r := range [][2]string{{"0.0.0.0/0", "192.0.2.1"}, {"::/0", "2001:db8::1"}} {
		via := netip.MustParseAddr(r[1])
		l.neighbour("up0", via, mac(ports))
		prefix := netip.MustParsePrefix(r[0])
		l.must(netlink.RouteAdd(&netlink.Route{Gw: via.AsSlice(),
			Dst: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(0, prefix.Addr().BitLen())}}))
	}
	l.must(ends.Do(l.open))
	t.Cleanup(func() { unix.Close(l.socket) })
	up, err := netlink.LinkByName("up0")
	l.must(err)
	l.gateway[rest] = up.Attrs().HardwareAddr
	for i := range ports {
		l.gateway[endName(i)] = mac(0xfe)
	}
	done := make(chan struct{})
	go func() { // one thread on one CPU
		defer close(done)
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(firstCPU())
		_ = unix.SchedSetaffinity(0, &set)
		for f := range l.do {
			f()
		}
	}()
	t.Cleanup(func() { close(l.do); <-done })
	l.warmUp()
	return l
}

// warmUp returns when packets pass on all ways: a device that was just set up drops them until the kernel has noticed
// (net/core/link_watch.c).
func (l *lab) warmUp() {
	l.t.Helper()
	var list []probe
	var arrived []bool
	for limit := time.Now().Add(patient); time.Now().Before(limit); {
		list = nil
		for _, far := range []string{"192.0.2.1", "2001:db8::1"} {
			for i := range ports {
				p := policy.Packet{Source: netip.MustParseAddr(far), Protocol: policy.UDP, Port: 9}
				p.Destination = podAddress(i, p.Source.Is6())
				list = append(list, probe{Packet: p})
				p.Source, p.Destination = p.Destination, p.Source
				list = append(list, probe{Packet: p})
			}
		}
		if arrived = l.send(list); !slices.Contains(arrived, false) {
			l.forget()
			return
		}
	}
	for i, ok := range arrived {
		if !ok {
			l.t.Errorf("%+v does not pass without any policy", list[i])
		}
	}
	l.t.FailNow()
}

// firstCPU returns a CPU on which this process may run.
func firstCPU() int {
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	for i := range 1024 {
		if set.IsSet(i) {
			return i
		}
	}
	return 0
}

// clearTables removes the engine's tables.
func clearTables(t testing.TB) {
	t.Helper()
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, family := range families() {
		if err := c.RemoveTable(family, name); err != nil {
			t.Error(err)
		}
	}
}

// families returns the families of the engine's tables.
func families() map[string]nftables.TableFamily {
	return map[string]nftables.TableFamily{
		Table: nftables.TableFamilyINet, ClosedTable: nftables.TableFamilyINet, SourcesTable: nftables.TableFamilyBridge,
	}
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func write(values map[string]string) error {
	for path, value := range values {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) remove(name string) {
	if link, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(link)
	}
}

// veth adds a link whose other end is in ends.
func (l *lab) veth(name, end string, address net.HardwareAddr) {
	l.t.Helper()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
	veth.PeerName, veth.PeerNamespace, veth.PeerHardwareAddr = end, netlink.NsFd(l.ends.Fd()), address
	l.must(netlink.LinkAdd(veth))
	l.must(netlink.LinkSetUp(veth))
	l.must(l.ends.Do(func() error {
		link, err := netlink.LinkByName(end)
		if err != nil {
			return err
		}
		l.indexes[end], l.names[link.Attrs().Index] = link.Attrs().Index, end
		return netlink.LinkSetUp(link)
	}))
}

func (l *lab) up(name string, addresses ...string) {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	l.must(err)
	for _, a := range addresses {
		address, err := netlink.ParseAddr(a)
		l.must(err)
		address.Flags = unix.IFA_F_NODAD
		l.must(netlink.AddrAdd(link, address))
	}
	l.must(netlink.LinkSetUp(link))
}

func (l *lab) neighbour(device string, a netip.Addr, address net.HardwareAddr) {
	l.t.Helper()
	link, err := netlink.LinkByName(device)
	l.must(err)
	l.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(),
		HardwareAddr: address}))
}

// open opens the socket of packets.
func (l *lab) open() (err error) {
	l.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(big(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	return unix.SetsockoptInt(l.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
}

func big(n uint16) uint16 { return n<<8 | n>>8 }

// podAddress returns the address of the pod at a port.
func podAddress(i int, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
}

// endOf returns the device in ends at which an address is.
func endOf(a netip.Addr) (name string, address net.HardwareAddr) {
	for i := range ports {
		if a == podAddress(i, a.Is6()) {
			return endName(i), mac(i)
		}
	}
	return rest, mac(ports)
}

// probe is a packet that a test sends.
type probe struct {
	policy.Packet
	from   string // the device in ends; empty: that of the source
	source uint16 // the source port, or the number of an echo request; 0: any
	number uint32
}

// send sends packets of new connections, and returns which of them arrive. It returns when all have arrived or have
// been dropped.
func (l *lab) send(list []probe) (arrived []bool) {
	l.t.Helper()
	done := make(chan error)
	l.do <- func() { done <- l.exchange(list) }
	l.must(<-done)
	for i := range list {
		to, _ := endOf(list[i].Destination)
		at, ok := l.received[list[i].number]
		if ok && at != to {
			l.t.Errorf("%+v came to %s, want %s", list[i], at, to)
		}
		arrived = append(arrived, ok)
		delete(l.received, list[i].number)
	}
	return arrived
}

func (l *lab) exchange(list []probe) error {
	for i := range list {
		if err := l.transmit(&list[i]); err != nil {
			return err
		}
	}
	// Neighbour messages always pass, from the first pod to the last by the same queues.
	end := probe{Packet: policy.Packet{Protocol: policy.ICMPv6, ICMPType: 136, Source: podAddress(0, true),
		Destination: podAddress(ports-1, true)}}
	for limit := time.Now().Add(patient); time.Now().Before(limit); {
		if err := l.transmit(&end); err != nil {
			return err
		}
		for wait := time.Now().Add(time.Second); time.Now().Before(wait); {
			l.receive()
			if _, ok := l.received[end.number]; ok {
				return nil
			}
			runtime.Gosched()
		}
	}
	return fmt.Errorf("no packet arrives")
}

// transmit sends a packet.
func (l *lab) transmit(p *probe) error {
	l.last++
	p.number = l.last
	from := p.from
	source, sourceMAC := endOf(p.Source)
	if from == "" {
		from = source
	}
	to := l.gateway[from]
	if at, address := endOf(p.Destination); from != rest && at != rest && at != from {
		to = address
	}
	b := append(append([]byte{}, to...), sourceMAC...)
	b = append(b, packet(p)...)
	return unix.Sendto(l.socket, b, 0, &unix.SockaddrLinklayer{Ifindex: l.indexes[from], Halen: 6})
}

// receive takes in what has arrived.
func (l *lab) receive() {
	b := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(l.socket, b, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		at, ok := from.(*unix.SockaddrLinklayer)
		if !ok || at.Pkttype != unix.PACKET_HOST || n < 14 { // another type: our own, or flooded by the bridge
			continue
		}
		if number, ok := numberOf(b[14:n]); ok {
			l.received[number] = l.names[at.Ifindex]
		} else if isAnswer(b[14:n]) {
			l.answers[l.names[at.Ifindex]]++
		}
	}
}

// packet returns a packet with its number at the end, from the header with the ethertype on.
func packet(p *probe) []byte {
	number := binary.BigEndian.AppendUint32([]byte("probe"), p.number)
	source := p.source
	if source == 0 {
		source = uint16(1024 + p.number%60000)
	}
	b := binary.BigEndian.AppendUint16(nil, source)
	b = binary.BigEndian.AppendUint16(b, p.Port)
	checksum := 0 // where it is
	switch p.Protocol {
	case policy.TCP:
		flags := byte(2) // SYN
		if p.State == policy.Invalid {
			flags = 0x14 // RST, ACK
		}
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0x20, 0, 0, 0, 0, 0)
		checksum = 16
	case policy.UDP:
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(number)))
		b = append(b, 0, 0)
		checksum = 6
	case policy.SCTP:
		// INIT (RFC 9260, section 3.3.2), with the number as its parameters.
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, byte(20+len(number)), 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(append(b, number...), crc32.MakeTable(crc32.Castagnoli)))
	default:
		kind := byte(8)
		if p.Destination.Is6() {
			kind = p.ICMPType
		}
		b = []byte{kind, 0, 0, 0, byte(source >> 8), byte(source), 0, 0}
		if kind == 136 {
			b = append(b, netip.MustParseAddr("fe80::1").AsSlice()...)
		}
		checksum = 2
	}
	b = append(b, number...)
	from, to := p.Source.AsSlice(), p.Destination.AsSlice()
	if checksum > 0 {
		pseudo := append(append([]byte{}, from...), to...)
		if p.Protocol == 1 {
			pseudo = nil
		} else {
			pseudo = append(pseudo, 0, 0, byte(len(b)>>8), byte(len(b)), 0, 0, 0, byte(p.Protocol))
		}
		binary.BigEndian.PutUint16(b[checksum:], sum(append(pseudo, b...)))
	}
	if p.Source.Is4() {
		h := []byte{0x45, 0, 0, byte(20 + len(b)), 0, 0, 0x40, 0, 64, byte(p.Protocol), 0, 0}
		h = append(append(h, from...), to...)
		binary.BigEndian.PutUint16(h[10:], sum(h))
		return append(append([]byte{8, 0}, h...), b...)
	}
	h := []byte{0x60, 0, 0, 0, 0, byte(len(b)), byte(p.Protocol), 64}
	if p.Protocol == policy.ICMPv6 && p.ICMPType >= 130 {
		h[7] = 255 // RFC 4861
	}
	h = append(append(h, from...), to...)
	return append(append([]byte{0x86, 0xdd}, h...), b...)
}

// numberOf returns the number of a probe. It is not in ICMP messages about one: errors, and redirects of a packet that
// goes back to where it came from.
func numberOf(b []byte) (n uint32, ok bool) {
	const header4, header6, redirect = 20, 40, 137
	switch {
	case len(b) > header4 && b[0]>>4 == 4:
		ok = b[9] != 1 || b[header4] == 8
	case len(b) > header6 && b[0]>>4 == 6:
		ok = b[6] != byte(policy.ICMPv6) || b[header6] >= 128 && b[header6] != redirect
	}
	if !ok || string(b[len(b)-9:len(b)-4]) != "probe" {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[len(b)-4:]), true
}

// isAnswer reports whether a packet is a reset of TCP, or "destination unreachable" of ICMP.
func isAnswer(b []byte) bool {
	const header4, header6, flags, reset = 20, 40, 13, 4
	switch {
	case len(b) > header4+flags && b[0]>>4 == 4:
		return b[9] == unix.IPPROTO_TCP && b[header4+flags]&reset != 0 || b[9] == unix.IPPROTO_ICMP && b[header4] == 3
	case len(b) > header6+flags && b[0]>>4 == 6:
		return b[6] == unix.IPPROTO_TCP && b[header6+flags]&reset != 0 || b[6] == unix.IPPROTO_ICMPV6 && b[header6] == 1
	}
	return false
}

// sum returns the checksum of RFC 1071.
func sum(b []byte) uint16 {
	total := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		total += uint32(b[len(b)-1]) << 8
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// forget deletes all entries of connection tracking.
func (l *lab) forget() {
	l.t.Helper()
	l.must(netlink.ConntrackTableFlush(netlink.ConntrackTable))
}

// start runs an engine until the test ends, or stop is called.
func start(t testing.TB, o Options) (e *Engine, stop func()) {
	t.Helper()
	o.Node = thisNode
	if o.Log == nil {
		log := logrus.New()
		log.SetOutput(io.Discard)
		o.Log = log
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return e, stop
}

// await waits for a condition on the engine, which a pass can change.
func await(t testing.TB, e *Engine, what string, condition func() bool) {
	t.Helper()
	for limit := time.After(patient); ; {
		e.mu.Lock()
		ok, passed := condition(), e.passed
		e.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-passed:
		case <-limit:
			t.Fatalf("waited for: %s; %+v", what, e.Status())
		}
	}
}

// apply changes objects, and returns when the kernel has what follows.
func apply(t testing.TB, e *Engine, f func(policy.Objects)) {
	t.Helper()
	e.Update(f)
	e.SetSynced(true)
	await(t, e, "the rules in the kernel", func() bool { return e.applied == e.version })
}
