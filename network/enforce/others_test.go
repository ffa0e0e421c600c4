package enforce

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/network/policy"
)

// others is a table of another program, which ends with the test.
func others(t *testing.T, family nftables.TableFamily) (*nfttest.Foreign, *nftables.Table) {
	t.Helper()
	f := nfttest.New(t, here{})
	table := f.AddTable(&nftables.Table{Family: family, Name: "others"})
	f.Commit()
	t.Cleanup(func() {
		f.DelTable(table)
		f.Commit()
	})
	return f, table
}

// chainAt adds a base chain at a hook.
func chainAt(
	f *nfttest.Foreign, t *nftables.Table, name string, of nftables.ChainType, hook *nftables.ChainHook, priority int32,
) *nftables.Chain {
	return f.AddChain(&nftables.Chain{Table: t, Name: name, Type: of, Hooknum: hook,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority))})
}

// toPort matches packets of a protocol to a port.
func toPort(protocol policy.Protocol, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}, nft.Equals(byte(protocol)),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: unix.NFT_REG_1},
		nft.Equals(binary.BigEndian.AppendUint16(nil, port)...),
	}
}

func decided(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

// arrivesAt sends a packet, and returns the device at which it arrives, whatever its destination; empty: it does not.
func (l *lab) arrivesAt(p probe) string {
	l.t.Helper()
	done := make(chan error)
	list := []probe{p}
	l.do <- func() { done <- l.exchange(list) }
	l.must(<-done)
	return l.received[list[0].number]
}

// TestBesideOthers: an accept in another table does not open what a policy denies, and an accept in ours does not open
// what another table drops, whatever their order.
func TestBesideOthers(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	f, table := others(t, nftables.TableFamilyINet)
	for _, priority := range []int32{-100, 0, 100} {
		ch := chainAt(f, table, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, priority)
		f.Append(ch, append(toPort(policy.TCP, 82), decided(expr.VerdictDrop))...)
		f.Append(ch, decided(expr.VerdictAccept))
		f.Commit()
		l.passes(t, true, tcp(1, 0, 80), tcp(0, 1, 81))
		l.passes(t, false, tcp(1, 0, 81), tcp(2, 0, 80), tcp(0, 1, 82))
		f.DelChain(ch)
		f.Commit()
	}
}

// TestTranslated: a packet whose destination is translated, as that of a Service, a node port or a host port, is judged
// by the pod and the port that it gets, and by the source that it has before masquerading.
func TestTranslated(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	f, table := others(t, nftables.TableFamilyIPv4)
	service, nodeAddress := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("192.0.2.254")
	pre := chainAt(f, table, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
	post := chainAt(f, table, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100)
	for _, to := range []netip.Addr{service, nodeAddress} { // port 80 of both is port 8080 of the pod at port 0
		f.Append(pre, append([]expr.Any{
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4, DestRegister: unix.NFT_REG_1},
			nft.Equals(to.AsSlice()...),
		}, append(toPort(policy.TCP, 80),
			&expr.Immediate{Register: unix.NFT_REG_1, Data: podAddress(0, false).AsSlice()},
			&expr.Immediate{Register: unix.NFT_REG_2, Data: binary.BigEndian.AppendUint16(nil, 8080)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG_2},
		)...)...)
	}
	f.Append(post, &expr.Masq{})
	f.Commit()
	packet := func(from, to netip.Addr) probe {
		return probe{Packet: policy.Packet{Source: from, Destination: to, Protocol: policy.TCP, Port: 80}}
	}
	outside := netip.MustParseAddr("192.0.2.1")
	pods := func(port string) func(policy.Objects) {
		return func(to policy.Objects) {
			webAndClient(t)(to)
			to.SetPolicy(decode(t, "web", `{"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [
				{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}, {"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": `+port+`}]}]}`))
			to.SetPolicy(decode(t, "client", `{"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [
				{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": `+port+`}]}]}`))
		}
	}
	for _, x := range []struct {
		port  string
		probe probe
		want  string
	}{
		{"8080", packet(podAddress(1, false), service), endName(0)},
		{"8080", packet(podAddress(2, false), service), ""}, // not a client
		{"8080", packet(outside, nodeAddress), endName(0)},
		{"8080", packet(netip.MustParseAddr("192.0.2.2"), nodeAddress), ""},
		{"80", packet(podAddress(1, false), service), ""}, // the Service's port
		{"80", packet(outside, nodeAddress), ""},
	} {
		apply(t, e, pods(x.port))
		if got := l.arrivesAt(x.probe); got != x.want {
			t.Errorf("with port %s allowed, %+v arrives at %q, want %q", x.port, x.probe.Packet, got, x.want)
		}
	}
	// A pod reaches itself through a Service, although nothing is allowed.
	port, err := netlink.LinkByName(portName(0))
	l.must(err)
	l.must(netlink.LinkSetHairpin(port, true)) // as the CNI plugin does
	apply(t, e, func(to policy.Objects) {
		to.SetPolicy(decode(t, "web", denyAll))
		to.DeletePolicy("red", "client")
	})
	if got := l.arrivesAt(packet(podAddress(0, false), service)); got != endName(0) {
		t.Errorf("a pod to itself through a Service arrives at %q", got)
	}
	if got := l.arrivesAt(packet(podAddress(1, false), service)); got != "" {
		t.Errorf("another pod through the Service arrives at %q", got)
	}
}

// TestUntracked: packets without connection tracking are judged one by one.
func TestUntracked(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	f, table := others(t, nftables.TableFamilyINet)
	f.Append(chainAt(f, table, "raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300), &expr.Notrack{})
	f.Commit()
	l.passes(t, true, tcp(1, 0, 80), tcp(2, 1, 80))
	l.passes(t, false, tcp(1, 0, 81), tcp(2, 0, 80))
}

// TestNodeItself: what the node sends to its pods, and they to it, is not judged, whoever the sender's user is, and by
// whatever address of the node; what the node forwards for others is.
func TestNodeItself(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, denied(t))
	apply(t, e, func(to policy.Objects) { to.SetPod(podAt(0, "web")) })
	for _, six := range []bool{false, true} {
		pod := podAddress(0, six)
		bridge, uplink := netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("192.0.2.254")
		if six {
			bridge, uplink = netip.MustParseAddr("fd00::fe"), netip.MustParseAddr("2001:db8::fe")
		}
		for _, from := range []netip.Addr{bridge, uplink} {
			l.last++
			number := l.last
			conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(pod, 80)))
			l.must(err)
			_, err = conn.Write(binary.BigEndian.AppendUint32([]byte("probe"), number))
			l.must(err)
			conn.Close()
			l.send(nil)
			if at := l.received[number]; at != endName(0) {
				t.Errorf("from the node's %s: it arrives at %q, want %s", from, at, endName(0))
			}

			server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
			l.must(err)
			port := uint16(server.LocalAddr().(*net.UDPAddr).Port)
			l.send([]probe{{Packet: policy.Packet{Source: pod, Destination: from, Protocol: policy.UDP, Port: port}}})
			l.must(server.SetReadDeadline(time.Now().Add(patient)))
			if _, err := server.Read(make([]byte, 64)); err != nil {
				t.Errorf("to the node's %s: %v", from, err)
			}
			server.Close()
		}
	}
	l.passes(t, false, tcp(7, 0, 80), tcp(0, 7, 80))
	far := probe{Packet: policy.Packet{Source: netip.MustParseAddr("192.0.2.253"), Destination: podAddress(0, false), Protocol: policy.UDP, Port: 80}}
	if got := l.send([]probe{far}); got[0] {
		t.Error("another node's packet passes")
	}
}

// TestReject: the sender of a denied packet gets a reset, or an error of ICMP, if that is the option.
func TestReject(t *testing.T) {
	l := newLab(t)
	for _, reject := range []bool{false, true} {
		e, stop := start(t, Options{Reject: reject})
		apply(t, e, webAndClient(t))
		for _, denied := range []probe{tcp(2, 0, 80), tcp(1, 0, 81), udp(2, 0, 4000, 80, false), udp(2, 0, 4000, 80, true)} {
			clear(l.answers)
			from, _ := endOf(denied.Source)
			if got := l.send([]probe{denied}); got[0] {
				t.Errorf("%+v arrives", denied.Packet)
			}
			if got := l.answers[from] == 1; got != reject {
				t.Errorf("reject %t: %+v is answered: %v", reject, denied.Packet, l.answers)
			}
		}
		stop()
	}
}

// TestBaseChainsStay: no change of pods and policies registers or removes a base chain, which drops what waits in a
// queue of other programs (nf_queue_nf_hook_drop in net/netfilter/nf_queue.c).
func TestBaseChainsStay(t *testing.T) {
	newLab(t)
	e, _ := start(t, Options{})
	e.SetAttachments(nil)
	apply(t, e, webAndClient(t))
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended, last := make(chan struct{}), make(chan error, 1), make(chan struct{})
	base := map[string]bool{"egress": true, "ingress": true, "prerouting": true, "forward": true}
	changes := 0
	go func() {
		ended <- nft.Watch(ctx, func() { close(ready) }, func() { t.Error("events were lost") }, func(events []nft.Event) {
			for _, x := range events {
				if _, ours := families()[x.Table]; ours {
					changes++
				}
				switch x.Type {
				case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
					if base[x.Chain] {
						t.Errorf("the base chain %s of table %s was made or removed", x.Chain, x.Table)
					}
				case unix.NFT_MSG_NEWTABLE:
					if x.Table == "others" {
						close(last)
					}
				}
			}
		})
	}()
	<-ready
	for i, change := range []func(policy.Objects){
		func(to policy.Objects) { to.SetPod(podAt(3, "web")) },
		func(to policy.Objects) { to.SetPolicy(decode(t, "all", denyAll)) },
		func(to policy.Objects) { to.DeletePod(podAt(3, "web").UID) },
		func(to policy.Objects) { to.SetPolicy(decode(t, "web", denyAll)) },
		func(to policy.Objects) { to.DeletePolicy("red", "all") },
	} {
		e.SetAttachments([]Attachment{attachmentAt(i)})
		apply(t, e, change)
	}
	others(t, nftables.TableFamilyINet) // whose event is the last
	<-last
	cancel()
	if err := <-ended; err != nil || changes == 0 {
		t.Errorf("%d changes were seen, %v", changes, err)
	}
}
