package backend_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backend/vxlan"
	"github.com/selvage-net/selvage/backend/wireguard"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// oneNode is a [backend.Keeper] of a node of many.
type oneNode byte

func (k oneNode) MAC(string, network.MAC) network.MAC { return network.MAC{2, 0, 0, 0, 0, byte(k)} }

func (k oneNode) Secret(_ string, size int, _ func() ([]byte, error)) ([]byte, error) {
	secret := make([]byte, size)
	secret[0] = 8 * byte(k)
	return secret, nil
}

// mover is a node of a model of a cluster that moves between backends. What is sent to it by a backend arrives if it has
// the device, and knows the sender.
type mover struct {
	id      byte
	config  string // the backend of the network config, as this node knows it
	carrier *backend.Transition
	devices map[string]bool         // by backend
	lease   subnet.Lease            // as the store has it
	noted   []string                // the backends that are in use, as the state directory has them
	known   map[*mover]subnet.Lease // as this node knows them
	read    int                     // how many of the store's writes it knows
	blocked *mover                  // a peer that no WireGuard packet reaches; nil: there is none
	dead    bool                    // the daemon does not run: the kernel goes on with what it has
}

func (m *mover) part(t *testing.T, name string) backend.Part {
	t.Helper()
	kinds := map[string]backend.Kind{vxlan.Type: vxlan.Kind(), wireguard.Type: wireguard.Kind()}
	c, err := subnet.ParseConfig(fmt.Appendf(nil, `{"Network":"10.5.0.0/16","Backend":{"Type":"%s"}}`, name))
	if err != nil {
		t.Fatal(err)
	}
	local := [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, m.id})}
	b, err := kinds[name].New(c, backend.Underlay{Link: "eth0", MTU: 1500, Local: local, PublicIP: local, Keep: oneNode(m.id)})
	if err != nil {
		t.Fatal(err)
	}
	return backend.Part{Backend: b, Type: name}
}

func other(name string) string {
	return map[string]string{vxlan.Type: wireguard.Type, wireguard.Type: vxlan.Type}[name]
}

// advertised is the lease that the node wants in the store.
func (m *mover) advertised() subnet.Lease {
	l := subnet.Lease{BackendType: m.carrier.LeaseType(), Endpoints: m.carrier.Advertise()}
	l.Endpoints[subnet.IPv4].Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, m.id, 0}), 24)
	return l
}

// accepts returns what a node has in the kernel for a peer; nothing if it rejects the lease.
func (m *mover) accepts(peer *mover) (s network.State) {
	l := m.known[peer]
	_, isNew := l.As(m.carrier.New.Type)
	if isNew || m.carrier.Old.Backend != nil && l.BackendType == m.carrier.Old.Type {
		s, _ = m.carrier.Peer(l)
	}
	return s
}

// sendsBy returns the backend by which a node sends to a peer; empty: by none.
func (m *mover) sendsBy(peer *mover) string {
	for _, r := range m.accepts(peer).Routes {
		return map[string]string{"flannel.1": vxlan.Type, "flannel-wg": wireguard.Type}[r.Value.Link]
	}
	return ""
}

// receives reports whether what a peer sends by a backend arrives.
func (m *mover) receives(name string, peer *mover) bool {
	s := m.accepts(peer)
	knows := map[string]bool{vxlan.Type: len(s.VTEPs) > 0, wireguard.Type: len(s.Peers) > 0 && len(s.AllowedIPs) > 0}
	return m.devices[name] && knows[name] && (name != wireguard.Type || m.blocked != peer && peer.blocked != m)
}

// configured is what a node does when it learns of another network config.
func (m *mover) configured(t *testing.T, name string) { m.move(t, name, m.config, m.advertised()) }

// move makes the node one that moves between backends; lease is its own.
func (m *mover) move(t *testing.T, name, old string, lease subnet.Lease) {
	m.config = name
	if _, used := lease.As(old); !used { // the move to it has not begun
		m.carrier, m.noted, m.devices[old] = &backend.Transition{New: m.part(t, name)}, []string{name}, false
		return
	}
	_, offered := lease.As(name)
	m.carrier = &backend.Transition{
		New: m.part(t, name), Old: m.part(t, old),
		Levels: backend.Levels{First: lease.BackendType, Offered: offered, SendsOld: true},
	}
	m.noted = []string{name, old}
}

// restarted is what a daemon does at its start.
func (m *mover) restarted(t *testing.T, name string, writes []write) {
	m.learn(writes, len(writes))
	if m.config = name; slices.Contains(m.noted, other(name)) {
		m.move(t, name, other(name), m.lease)
		return
	}
	m.carrier = &backend.Transition{New: m.part(t, name)}
}

// write is a lease that was written to the store.
type write struct {
	by    *mover
	lease subnet.Lease
}

// learn takes in the next of the writes, up to a number.
func (m *mover) learn(writes []write, number int) {
	for ; m.read < min(number, len(writes)); m.read++ {
		m.known[writes[m.read].by] = writes[m.read].lease
	}
}

// step is what a node does now and then.
func (m *mover) step(all []*mover) {
	c := m.carrier
	if c.Old.Backend == nil || m.known[m] != m.advertised() {
		return
	}
	var leases []subnet.Lease
	var answered []backend.Way
	for _, peer := range all {
		if peer == m {
			continue
		}
		leases = append(leases, m.known[peer])
		expected, _ := c.Expected(m.known[peer])
		if c.Levels.Offered && peer.receives(wireguard.Type, m) && m.receives(wireguard.Type, peer) {
			answered = append(answered, expected...)
		}
	}
	next := c.Next(m.devices[c.New.Type], true, leases)
	if next != c.Levels || len(answered) > 0 {
		m.carrier = c.With(next, answered)
		return
	}
	if !c.Levels.Withdrawn || slices.ContainsFunc(all, func(peer *mover) bool { return !peer.dead && peer.known[m] != m.lease }) {
		return // the time for the last packets has not passed
	}
	m.devices[c.Old.Type] = false
	m.carrier, m.noted = &backend.Transition{New: c.New}, []string{c.New.Type}
}

// TestTransition plays moves between backends, forth and back, in a model of a cluster in which everything takes as long
// as chance will have it, daemons die for a while, and WireGuard packets between two nodes may be blocked. At each
// moment, what each node sends to each other one arrives. In the end all nodes have left the old backend, unless they
// need it.
func TestTransition(t *testing.T) {
	const clusters, nodes, events = 60, 3, 200
	for seed := range uint64(clusters) {
		r := rand.New(rand.NewPCG(seed, 0))
		var all []*mover
		var writes []write
		config, log := [2]string{vxlan.Type, wireguard.Type}[r.IntN(2)], ""
		for i := range nodes {
			m := &mover{id: byte(i + 1), config: config, devices: map[string]bool{config: true}, known: map[*mover]subnet.Lease{}}
			m.carrier = &backend.Transition{New: m.part(t, m.config)}
			m.lease, m.noted = m.advertised(), []string{config}
			all = append(all, m)
			writes = append(writes, write{m, m.lease})
		}
		for _, m := range all {
			m.learn(writes, len(writes))
		}
		blocked := config == vxlan.Type && r.IntN(3) == 0
		if blocked {
			all[0].blocked = all[1]
		}
		check := func() {
			for _, from := range all {
				for _, to := range all {
					if by := from.sendsBy(to); from != to && !(from.devices[by] && to.receives(by, from)) {
						t.Fatalf("seed %d: node %d sends by %q, and node %d does not receive that:\n%s", seed, from.id, by, to.id, log)
					}
				}
			}
		}
		event := func(m *mover, kind int) {
			what := ""
			switch {
			case kind == 5 && m.dead:
				what = "is started, with the config " + config
				m.dead = false
				m.restarted(t, config, writes)
			case kind == 5 && r.IntN(3) == 0:
				what = "is stopped"
				m.dead = true
			case m.dead:
			case kind == 0 && m.config != config && !m.carrier.Levels.Withdrawn:
				what = "learns of the config " + config
				m.configured(t, config)
			case kind == 1 && !m.devices[m.carrier.New.Type]:
				what = "has all devices"
				m.devices[m.carrier.New.Type] = true
			case kind == 2 && m.lease != m.advertised():
				m.lease = m.advertised()
				writes = append(writes, write{m, m.lease})
				what = fmt.Sprintf("writes its lease: %s %+v", m.lease.BackendType, m.carrier.Levels)
			case kind == 3 && m.read < len(writes):
				what = fmt.Sprintf("learns of the lease of %d", writes[m.read].by.id)
				m.learn(writes, m.read+1)
			case kind == 4:
				before := m.carrier
				if m.step(all); m.carrier != before {
					what = fmt.Sprintf("steps to %+v, moving: %t", m.carrier.Levels, m.carrier.Old.Backend != nil)
				}
			}
			if what != "" {
				log += fmt.Sprintf("node %d %s\n", m.id, what)
				check()
			}
		}
		turns := r.IntN(6) + 1
		for i := range events {
			if i*turns/events != (i-1)*turns/events || i == 0 {
				config = other(config)
				log += "the config is " + config + "\n"
			}
			event(all[r.IntN(nodes)], r.IntN(6))
		}
		for range 20 { // until nothing is left to be done
			for _, m := range all {
				if m.dead {
					event(m, 5)
				}
				for kind := range 3 {
					event(m, kind)
				}
				for m.read < len(writes) {
					event(m, 3)
				}
				event(m, 4)
			}
		}
		for _, m := range all {
			if blocked && config == wireguard.Type {
				if !m.devices[vxlan.Type] {
					t.Fatalf("seed %d: node %d has left VXLAN, which is needed:\n%s", seed, m.id, log)
				}
			} else if m.carrier.Old.Backend != nil || m.lease.BackendType != config || m.devices[other(config)] {
				t.Fatalf("seed %d: node %d still moves to %s: %+v, devices %v, lease %+v\n%s", seed, m.id, config, m.carrier.Levels, m.devices, m.lease, log)
			}
		}
	}
}

// TestTransitionOfNode: a node has the devices of both backends, with a loose reverse path filter, and the smaller MTU. A
// lease is checked as nodes of each backend do.
func TestTransitionOfNode(t *testing.T) {
	m, peer := &mover{id: 1}, &mover{id: 2}
	alone := &backend.Transition{New: m.part(t, vxlan.Type)}
	both := &backend.Transition{Old: m.part(t, vxlan.Type), New: m.part(t, wireguard.Type)}
	own := [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}
	names := func(b *backend.Transition) (links, settings []string) {
		s := b.Device(own)
		if len(s.Addresses) != len(s.Links) {
			t.Errorf("addresses %v, want one for each of the devices", s.Addresses)
		}
		for _, l := range s.Links {
			links = append(links, l.Key)
		}
		for _, x := range s.Sysctls {
			settings = append(settings, x.Key+"="+string(x.Value))
		}
		return links, settings
	}
	if links, settings := names(alone); !slices.Equal(links, []string{"flannel.1"}) || settings != nil || alone.Describe().MTU != 1450 {
		t.Errorf("devices %v, settings %v, %+v", links, settings, alone.Describe())
	}
	links, settings := names(both)
	if d := both.Describe(); !slices.Equal(links, []string{"flannel.1", "flannel-wg"}) || d.MTU != 1420 || len(d.Tunnels) != 2 {
		t.Errorf("devices %v, %+v", links, d)
	}
	if want := []string{"net/ipv4/conf/flannel.1/rp_filter=2", "net/ipv4/conf/flannel-wg/rp_filter=2"}; !slices.Equal(settings, want) {
		t.Errorf("settings %v, want %v", settings, want)
	}
	if alone.Direct() || both.Direct() || alone.Warning() != "" || both.Warning() != "" {
		t.Error("direct, or with a warning")
	}

	as := func(levels backend.Levels) subnet.Lease {
		peer.carrier = &backend.Transition{Old: peer.part(t, vxlan.Type), New: peer.part(t, wireguard.Type), Levels: levels}
		return peer.advertised()
	}
	old, offered := as(backend.Levels{First: vxlan.Type}), as(backend.Levels{First: vxlan.Type, Offered: true, SendsOld: true})
	withdrawn := as(backend.Levels{Withdrawn: true})
	for _, tt := range []struct {
		lease  subnet.Lease
		unique int
		waits  string
	}{{old, 1, "vxlan only"}, {offered, 2, "not answered by wireguard yet"}, {withdrawn, 1, ""}} {
		unique, err := both.Check(tt.lease)
		if why := both.Waits(tt.lease); err != nil || len(unique) != tt.unique || !strings.Contains(why, tt.waits) || (why == "") != (tt.waits == "") {
			t.Errorf("%+v: unique %v, %v, waits: %q", tt.lease, unique, err, why)
		}
	}
	expected, _ := both.Expected(offered)
	if why := both.With(backend.Levels{}, expected).Waits(offered); !strings.Contains(why, "this node is not ready") {
		t.Errorf("waits: %q", why)
	}
	if _, err := alone.Peer(offered); err != nil {
		t.Errorf("a node that does not move, and a lease with two backends: %v", err)
	}
	for _, part := range []string{`"VtepMAC":"02`, `"PublicKey":"`} {
		bad := offered
		bad.Endpoints[subnet.IPv4].Data = strings.Replace(bad.Endpoints[subnet.IPv4].Data, part, part+"!", 1)
		_, err := both.Check(bad)
		if _, peerErr := both.Peer(bad); err == nil || peerErr == nil {
			t.Errorf("%s: %v, %v, want an error", bad.Endpoints[subnet.IPv4].Data, err, peerErr)
		}
	}
}

// TestTransitionLeases: at each level, a lease says what the node receives by, and what it may send by.
func TestTransitionLeases(t *testing.T) {
	m := &mover{id: 1}
	for _, tt := range []struct {
		levels          backend.Levels
		receives, sends string
	}{
		{backend.Levels{First: vxlan.Type, SendsOld: true}, "vxlan", "vxlan"},
		{backend.Levels{First: vxlan.Type, Offered: true, SendsOld: true}, "vxlan wireguard", "vxlan wireguard"},
		{backend.Levels{First: wireguard.Type, Offered: true, SendsOld: true}, "vxlan wireguard", "vxlan wireguard"},
		{backend.Levels{First: wireguard.Type, Offered: true}, "vxlan wireguard", "wireguard"},
		{backend.Levels{First: wireguard.Type, Offered: true, Withdrawn: true}, "wireguard", "wireguard"},
	} {
		m.carrier = &backend.Transition{Old: m.part(t, vxlan.Type), New: m.part(t, wireguard.Type), Levels: tt.levels}
		l := m.advertised()
		var receives, sends []string
		for _, name := range []string{vxlan.Type, wireguard.Type} {
			if _, ok := l.As(name); ok {
				receives = append(receives, name)
			}
			if l.Sends(name) {
				sends = append(sends, name)
			}
		}
		if got, also := strings.Join(receives, " "), strings.Join(sends, " "); got != tt.receives || also != tt.sends {
			t.Errorf("%+v: receives by %s, sends by %s, want %s and %s", tt.levels, got, also, tt.receives, tt.sends)
		}
	}
}

// TestTransitionEncrypted: where encryption is required, nothing is sent by the backend that does not encrypt once the
// level has been reached at which no peer needed it, not even to a peer that has not answered since a restart.
func TestTransitionEncrypted(t *testing.T) {
	m, peer := &mover{id: 1}, &mover{id: 2}
	sending := backend.Levels{First: vxlan.Type, Offered: true, SendsOld: true}
	left := backend.Levels{First: wireguard.Type, Offered: true}
	peer.carrier = &backend.Transition{Old: peer.part(t, vxlan.Type), New: peer.part(t, wireguard.Type), Levels: sending}
	for _, tt := range []struct {
		levels    backend.Levels
		encrypted bool
		want      string // the device of the route to the peer
	}{{sending, true, "flannel.1"}, {left, false, "flannel.1"}, {left, true, "flannel-wg"}} {
		c := &backend.Transition{
			Old: m.part(t, vxlan.Type), New: m.part(t, wireguard.Type), Levels: tt.levels, Encrypted: tt.encrypted,
		}
		s, err := c.Peer(peer.advertised())
		if err != nil || len(s.Routes) != 1 || s.Routes[0].Value.Link != tt.want || len(s.VTEPs) != 1 {
			t.Errorf("%+v, encrypted %t: %v, routes %v, VTEPs %v", tt.levels, tt.encrypted, err, s.Routes, s.VTEPs)
		}
		strict := tt.want == "flannel-wg"
		if c.Strict() != strict || (c.Waits(peer.advertised()) == "") != strict {
			t.Errorf("%+v, encrypted %t: strict %t, waits: %q", tt.levels, tt.encrypted, c.Strict(), c.Waits(peer.advertised()))
		}
	}
	if c := (&backend.Transition{New: m.part(t, wireguard.Type), Encrypted: true}); c.Strict() {
		t.Error("strict without an old backend")
	}
}
