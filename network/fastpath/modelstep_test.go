package fastpath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// change is one of the model's: what becomes of the decisions, and what makes it so.
type change struct {
	name  string
	stops bool // packets do not arrive after it
	to    func(*decisions)
	do    func(m *model, d decisions)
}

// changes are all there are.
func changes() []change {
	deny := func(i int) change {
		return change{
			name: fmt.Sprintf("node %d denies, or allows", i+1), stops: true,
			to: func(d *decisions) { d.denied[i] = !d.denied[i] },
			do: func(m *model, d decisions) {
				m.rule(m.nodes[i], d.denied[i], fmt.Sprintf("FORWARD -d %s -p udp --dport 53 -j DROP", m.nodes[1].pods[0].addr))
			},
		}
	}
	return []change{
		deny(0), deny(1),
		{
			name: "the service has another endpoint",
			to:   func(d *decisions) { d.endpoint = 1 - d.endpoint },
			do: func(m *model, d decisions) {
				rule := fmt.Sprintf("PREROUTING -t nat -d %s -p udp --dport 53 -j DNAT --to-destination %s",
					m.pods.service, netip.AddrPortFrom(m.nodes[1].pods[1].addr, 5353))
				m.rule(m.nodes[0], d.endpoint == 1, rule)
				m.forgotten(servicePort, d.away, func(f *netlink.ConntrackFlow) bool {
					return address(f.Reverse.SrcIP) == m.nodes[1].pods[d.endpoint].addr
				})
			},
		},
		{
			name: "a connection is masqueraded, or not",
			to:   func(d *decisions) { d.masked = !d.masked },
			do: func(m *model, d decisions) {
				m.rule(m.nodes[0], d.masked, fmt.Sprintf("POSTROUTING -t nat -s %s -p udp --dport 53 -j MASQUERADE",
					m.nodes[0].pods[0].addr))
				m.forgotten(directPort, d.away || d.denied[0], func(f *netlink.ConntrackFlow) bool {
					return address(f.Reverse.DstIP) == m.nodes[0].pods[0].addr != d.masked
				})
			},
		},
		{
			name: "a pod's address is another pod's",
			to:   func(d *decisions) { d.holder = 1 - d.holder },
			do: func(m *model, d decisions) {
				mac := m.nodes[1].pods[d.holder].mac
				m.run(m.nodes[1], fmt.Sprintf("ip neigh replace %s lladdr %s dev cni0 nud permanent", m.nodes[1].pods[0].addr,
					macText(mac)))
			},
		},
		{
			name: "a route is withdrawn, or comes back", stops: true,
			to: func(d *decisions) { d.away = !d.away },
			do: func(m *model, d decisions) {
				n := m.nodes[1]
				if d.away {
					m.run(m.nodes[0], fmt.Sprintf("ip route replace blackhole %s", n.subnet))
					return
				}
				m.run(m.nodes[0], fmt.Sprintf("ip route replace %s via %s dev flannel.1 onlink", n.subnet, n.subnet.Addr()))
			},
		},
		{
			name: "a node moves to another address",
			to: func(d *decisions) {
				d.peer = second(d.peer)
			},
			do: (*model).movePeer,
		},
		{
			name: "a VXLAN device has another MAC address",
			to:   func(d *decisions) { d.mac ^= 16 },
			do:   (*model).movePeer,
		},
		{
			name: "a VXLAN device has another MTU",
			to:   func(d *decisions) { d.mtu = 1430 + 1300 - d.mtu },
			do: func(m *model, d decisions) {
				n := m.nodes[0]
				m.run(n, fmt.Sprintf("ip link set flannel.1 mtu %d", d.mtu))
				n.config.MTU = d.mtu
				m.tell(n)
			},
		},
	}
}

// tell has a node's programs know of its settings, and work.
func (m *model) tell(n *labNode) {
	m.t.Helper()
	if err := errors.Join(n.path.Configure(n.config), n.path.Beat(time.Hour)); err != nil {
		m.t.Fatal(err)
	}
}

// rule adds a rule to the front of a chain, or deletes it.
func (m *model) rule(n *labNode, add bool, rule string) {
	m.t.Helper()
	how := "-D "
	if add {
		how = "-I "
	}
	m.run(n, strings.TrimSuffix(m.pods.iptables, "-restore")+" -w "+how+rule)
}

// movePeer has node 2 under its address and MAC address of now, in the kernels and in the programs' peers.
func (m *model) movePeer(d decisions) {
	m.t.Helper()
	a, b := m.nodes[0], m.nodes[1]
	if old := b.config.Local; old != d.peer { // a change of routes, too: without it the device keeps the old source
		m.run(b, fmt.Sprintf("ip addr del %s/%d dev eth0; ip addr add %s/%d dev eth0 nodad", old, m.underlay.link, d.peer,
			m.underlay.link))
	}
	old := b.config.MAC
	b.config.MAC[5], b.config.Local = d.mac, d.peer
	// With another MAC address the kernel forgets all neighbours (neigh_changeaddr in net/core/neighbour.c).
	m.run(b, fmt.Sprintf("ip link set flannel.1 address %s; ip link set flannel.1 type vxlan local %s\n"+
		"ip neigh replace %s lladdr %s dev flannel.1 nud permanent", macText(b.config.MAC), d.peer, a.subnet.Addr(),
		macText(a.config.MAC)))
	m.run(a, strings.NewReplacer("OLD", macText(old), "NEW", macText(b.config.MAC), "PEER", d.peer.String(),
		"GATE", b.subnet.Addr().String()).Replace(`
		bridge fdb del OLD dev flannel.1 self
		bridge fdb append NEW dev flannel.1 dst PEER self permanent
		ip neigh replace GATE lladdr NEW dev flannel.1 nud permanent`))
	if err := a.path.SetPeer(b.subnet, Peer{Address: d.peer, MAC: b.config.MAC}); err != nil {
		m.t.Fatal(err)
	}
	m.tell(b)
}

func macText(mac [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// second is the other address of a node on the underlay.
func second(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] ^= 16
	a, _ = netip.AddrFromSlice(b)
	return a
}

func address(ip []byte) netip.Addr { a, _ := netip.AddrFromSlice(ip); return a.Unmap() }

// forgotten has node 1's conntrack forget a connection until its entry is the desired one: an answer on its way can make
// an entry in the other direction, and then a packet gets another port. none: it must have no entry, as no packet passes.
func (m *model) forgotten(port uint16, none bool, right func(*netlink.ConntrackFlow) bool) {
	m.t.Helper()
	m.eventually("conntrack has the connection again", func() bool {
		known := m.connections(port)
		if none && len(known) == 0 || !none && len(known) == 1 && known[0].Forward.SrcPort == port &&
			known[0].Reverse.DstPort == port && right(known[0]) {
			return true
		}
		m.forget(port)
		return false
	})
}

// connections are those of a port of the first pod's.
func (m *model) connections(port uint16) (found []*netlink.ConntrackFlow) {
	m.t.Helper()
	m.do(m.nodes[0], func() error {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, m.pods.netlink)
		for _, f := range all {
			if f.Forward.Protocol == unix.IPPROTO_UDP && (f.Forward.SrcPort == port || f.Forward.DstPort == port) {
				found = append(found, f)
			}
		}
		return err
	})
	return found
}

// byPort is a filter of conntrack's entries.
type byPort uint16

func (p byPort) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == unix.IPPROTO_UDP && (f.Forward.SrcPort == uint16(p) || f.Forward.DstPort == uint16(p))
}

// forget has node 1's conntrack forget the connections of a port.
func (m *model) forget(port uint16) {
	m.t.Helper()
	m.do(m.nodes[0], func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, m.pods.netlink, byPort(port))
		return err
	})
}

// step is a change, and how what was learned before becomes void: by a flush or by its age.
type step struct {
	change
	flush bool
}

// deal returns every change with a flush and without one, in a random order. One that stops packets is undone by the
// next step, so that the others are seen.
func deal(random *rand.Rand) (steps []step) {
	var turns [][]step
	for _, c := range changes() {
		both := []step{{c, true}, {c, false}}
		if random.IntN(2) == 0 {
			slices.Reverse(both)
		}
		if c.stops {
			turns = append(turns, both)
			continue
		}
		turns = append(turns, both[:1], both[1:])
	}
	random.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	return slices.Concat(turns...)
}

// walk makes all steps in a random order.
func walk(l *lab, seed uint64) {
	m, t := &model{lab: l}, l.t
	t.Helper()
	t.Logf("seed %d", seed)
	a, b := m.nodes[0], m.nodes[1]
	m.run(a, "ip link set flannel.1 mtu 1430") // of all families alike
	a.config.MTU = 1430
	const life = time.Second / 4 // a quarter of what it is otherwise, for a short test
	for _, n := range m.nodes {
		n.config.Life = life
		m.configure(n)
		m.start(n)
	}
	for _, p := range b.pods {
		m.run(b, fmt.Sprintf("ip neigh replace %s lladdr %s dev cni0 nud permanent", p.addr, macText(p.mac)))
	}
	m.may(decisions{peer: b.underlay, mac: b.config.MAC[5], mtu: a.config.MTU})
	var background []func()
	for _, port := range []uint16{directPort, servicePort} {
		background = append(background, func() { m.send(port) })
	}
	for i, p := range b.pods {
		background = append(background, func() { m.receive(p.tap, func(f, x []byte) { m.inPod(i, f, x) }) })
	}
	background = append(background, func() { m.receive(b.wire, m.onWire) },
		func() { m.receive(a.pods[0].tap, m.back) })
	for _, f := range background {
		m.running.Go(f)
	}
	t.Cleanup(m.stopModel)

	m.goesOn("at first")
	for i, s := range deal(rand.New(rand.NewPCG(seed, 0))) {
		before := m.now()
		after := before
		s.to(&after)
		what := fmt.Sprintf("step %d: %s, flush: %t", i, s.name, s.flush)
		t.Log(what)
		unknown := after
		unknown.unknown = true
		m.may(before, after, unknown)
		s.do(m, after)
		if s.flush {
			for _, n := range m.nodes {
				if err := n.path.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			m.outlived(life)
		}
		m.may(after)
		m.goesOn(what)
		m.check(what)
	}
}

// outlived waits until what was learned before is void.
func (m *model) outlived(life time.Duration) {
	m.t.Helper()
	const behind = 20 * time.Millisecond // the programs' clock, and a packet on its way to be learned from
	now, err := monotonic()
	if err != nil {
		m.t.Fatal(err)
	}
	m.eventually("an entry's life is over", func() bool {
		later, err := monotonic()
		return err == nil && later > now+uint64(life+behind)
	})
}

// stopModel ends the streams.
func (m *model) stopModel() {
	m.end.Store(true)
	m.running.Wait()
}
