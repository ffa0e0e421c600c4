package fastpath

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTCP: streams arrive whole in both directions, over both paths and from one to the other; conntrack keeps the
// connection, and for as long as an established one.
func TestTCP(t *testing.T) { eachFamily(t, testTCP) }

func testTCP(t *testing.T, l *lab) {
	for _, tt := range []struct {
		name          string
		wire, service bool
		direct        bool
	}{
		{name: "large packets"},
		{name: "large packets, from the uplink on", direct: true},
		{name: "wire", wire: true},
		{name: "wire, from the uplink on", wire: true, direct: true},
		{name: "large packets, to a service", service: true},
		{name: "wire, to a service, from the uplink on", wire: true, service: true, direct: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.direct && l.underlay.direct {
				return // there is no VXLAN device to go by
			}
			l := &lab{t: t, pods: l.pods, underlay: l.underlay, service: l.service, nodes: l.nodes}
			a, b := l.nodes[0], l.nodes[1]
			for _, n := range l.nodes {
				l.do(n, func() error { return setWire(tt.wire) })
				n.config.DirectSegments = tt.direct
				l.configure(n)
			}
			l.start(a, b)
			to := net.JoinHostPort(b.pods[0].addr.String(), "7000")
			if tt.service {
				to = net.JoinHostPort(l.service.String(), "80")
			}
			near, far := l.connect(a.pods[0], b.pods[0], to)
			const some = 512 << 10
			both := func() {
				t.Helper()
				l.transfer(near, far, some)
				l.transfer(far, near, some)
			}
			both()
			var grown map[Reason]uint64
			grownAtSender := l.counted(a, func() { grown = l.counted(b, both) })
			l.fast("the sender", l.counters(a), Sent)
			if n := grownAtSender[LearnedSent]; n > grownAtSender[Unknown] {
				t.Errorf("%d packets are learned from that the slow path did not see: %v", n, grownAtSender)
			}
			if got := grownAtSender[SentSegments] > 0; got != (a.underlay.Is6() && !l.underlay.direct) {
				t.Errorf("large packets go to the VXLAN device: %t, over %s", got, a.underlay)
			}
			l.fast("the receiver", l.counters(b), Received)
			decapsulated := grown[ReceivedDecapsulated] > 0 || grown[Segments] > 0
			// On a wire, packets are as large as GRO makes them.
			whole := tt.direct || l.underlay.direct
			if whole && decapsulated || !whole && !tt.wire && !decapsulated {
				t.Errorf("large packets went as %v", grown)
			}
			l.established(a, near)
			l.established(b, near)

			l.stop(a, b)
			if grown := l.counted(a, both); grown[Sent]+grown[SentSegments]+grown[Received] > 0 || grown[Stopped] == 0 {
				t.Errorf("stopped, it counts %v", grown)
			}
			l.start(a, b)
			both()
			l.stop(a)
			both()
			l.start(a)
			l.stop(b)
			both()
			l.start(b)
			for range 2 {
				l.flush(a)
				both()
				l.flush(b)
				both()
			}
			l.established(a, near)
			l.established(b, near)
		})
	}
}

// connect connects a pod with another, by whatever address.
func (l *lab) connect(from, to *labPod, address string) (near, far net.Conn) {
	l.t.Helper()
	var listener net.Listener
	l.do(to, func() (err error) {
		listener, err = net.Listen("tcp", ":7000")
		return err
	})
	defer listener.Close()
	l.do(from, func() (err error) {
		near, err = net.DialTimeout("tcp", address, patient)
		return err
	})
	far, err := listener.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { near.Close(); far.Close() })
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
			l.t.Fatal(err)
		}
	}
	return near, far
}

// transfer sends random bytes and compares what arrives.
func (l *lab) transfer(from io.Writer, to io.Reader, n int64) {
	l.t.Helper()
	sent, arrived := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		random := rand.NewChaCha8([32]byte{byte(n)})
		_, err := io.CopyN(io.MultiWriter(from, sent), random, n)
		failed <- err
	}()
	if _, err := io.CopyN(arrived, to, n); err != nil {
		l.t.Fatal(err)
	}
	if err := <-failed; err != nil {
		l.t.Fatal(err)
	}
	if string(sent.Sum(nil)) != string(arrived.Sum(nil)) {
		l.t.Fatal("what arrives is not what was sent")
	}
}

// fast checks that packets were counted.
func (l *lab) fast(who string, c Counters, r Reason) {
	l.t.Helper()
	if c[r] == 0 {
		l.t.Errorf("%s counts no packet as %s", who, r)
	}
}

// established checks what conntrack has of a connection.
func (l *lab) established(n *labNode, c net.Conn) {
	l.t.Helper()
	var flows []*netlink.ConntrackFlow
	l.do(n, func() (err error) {
		flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, l.pods.netlink)
		return err
	})
	for _, f := range flows {
		if f.Forward.Protocol != unix.IPPROTO_TCP || int(f.Forward.SrcPort) != c.LocalAddr().(*net.TCPAddr).Port {
			continue
		}
		info, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
		const established, day = 3, 24 * 3600
		if !ok || info.State != established || f.TimeOut < 4*day {
			l.t.Errorf("conntrack has %s with %+v", f, f.ProtoInfo)
		}
		return
	}
	l.t.Error("conntrack does not know the connection")
}

// setWire has eth0 do what a network card does that knows nothing of tunnels, or what a veth does.
func setWire(on bool) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	return e.Change("eth0", map[string]bool{
		"tx-tcp-segmentation": !on, "tx-tcp-ecn-segmentation": !on, "tx-tcp-mangleid-segmentation": !on,
		"tx-checksum-ip-generic": !on, "tx-udp_tnl-segmentation": !on, "tx-udp_tnl-csum-segmentation": !on, "tx-udp-segmentation": !on, "rx-gro": on,
	})
}
