package wireguard_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backend/wireguard"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// turner is a node of a model of a cluster whose nodes change their keys.
type turner struct {
	id        byte
	key       network.Secret // as its file has it
	rotation  backend.Rotation
	asked     bool // it is to change its key
	b         backend.Backend
	device    map[string]sessions                  // what it has on each device
	peers     map[*turner]network.State            // what it has for each peer, as far as it was asked for
	lease     subnet.Lease                         // as the store has it
	known     map[*turner]subnet.Lease             // as this node knows them
	publics   map[network.Secret]network.PublicKey // of its keys
	read      int                                  // how many of the store's writes it knows
	confirmed map[backend.Way]bool                 // in this stage
	began     bool                                 // the store has the lease of this stage
	blocked   *turner                              // a peer that no packet reaches by the second devices; nil: there is none
	dead      bool
	changes   int // of its key, that have ended
}

// sessions is what a node has on a device: its key and port.
type sessions struct {
	public network.PublicKey
	port   uint16
}

// turn is a lease that was written to the store.
type turn struct {
	by    *turner
	lease subnet.Lease
}

// MAC implements [backend.Keeper].
func (n *turner) MAC(string, network.MAC) network.MAC { return network.MAC{} }

// Secret implements [backend.Keeper].
func (n *turner) Secret(string, int, func() ([]byte, error)) ([]byte, error) { return n.key[:], nil }

// remake makes the backend anew.
func (n *turner) remake(t *testing.T) {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}`))
	if err != nil {
		t.Fatal(err)
	}
	local := [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, n.id})}
	n.b, err = wireguard.New(c, backend.Underlay{Link: "eth0", MTU: 1500, Local: local, PublicIP: local,
		Rotation: n.rotation, Keep: n})
	if err != nil {
		t.Fatal(err)
	}
	n.device, n.peers = map[string]sessions{}, map[*turner]network.State{}
	for _, w := range n.b.Device(noSubnets).WireGuards {
		n.device[w.Key] = sessions{n.publicOf(t, w.Value.PrivateKey), w.Value.Port}
	}
}

// publicOf returns the public key of a private one.
func (n *turner) publicOf(t *testing.T, secret network.Secret) network.PublicKey {
	t.Helper()
	public, known := n.publics[secret]
	if !known {
		text, err := wireguard.Kind().Key.Public(secret[:])
		if err == nil {
			public, err = network.ParsePublicKey(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.publics[secret] = public
	}
	return public
}

func (n *turner) advertised() subnet.Lease {
	l := subnet.Lease{BackendType: wireguard.Type, Endpoints: n.b.Advertise()}
	l.Endpoints[subnet.IPv4].Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n.id, 0}), 24)
	return l
}

// rotator returns the node's backend as one that can change its key.
func (n *turner) rotator() backend.Rotator { return n.b.(backend.Rotator) }

// peer returns what a node has for a peer.
func (n *turner) peer(t *testing.T, peer *turner) network.State {
	s, known := n.peers[peer]
	if !known {
		var err error
		if s, err = n.b.Peer(n.known[peer]); err != nil {
			t.Fatal(err)
		}
		n.peers[peer] = s
	}
	return s
}

// on returns what a node has for a peer on a device: the peer's key and port, and its own key and port.
func (n *turner) on(t *testing.T, link string, peer *turner) (theirs, own network.PublicKey, to, at uint16) {
	s := n.peer(t, peer)
	for _, a := range s.AllowedIPs {
		if a.Key.Link == link {
			theirs = a.Value
		}
	}
	for _, p := range s.Peers {
		if p.Key == (network.PeerKey{Link: link, PublicKey: theirs}) {
			to = p.Value.Endpoint.Port()
		}
	}
	return theirs, n.device[link].public, to, n.device[link].port
}

var noSubnets [2]netip.Prefix

// delivers reports whether what a node sends to a peer on a device arrives.
func (n *turner) delivers(t *testing.T, link string, to *turner) bool {
	theirs, own, port, _ := n.on(t, link, to)
	sender, key, _, at := to.on(t, link, n)
	if link != "flannel-wg" && (n.blocked == to || to.blocked == n) {
		return false
	}
	return theirs == key && sender == own && port == at && own != network.PublicKey{} && theirs != network.PublicKey{}
}

// sendsBy returns the device by which a node sends to a peer.
func (n *turner) sendsBy(t *testing.T, to *turner) string {
	s := n.peer(t, to)
	if len(s.Routes) != 1 {
		t.Fatalf("routes %v, want one", s.Routes)
	}
	return s.Routes[0].Value.Link
}

// step is what a node does now and then: package node does the same.
func (n *turner) step(t *testing.T, all []*turner) {
	before := fmt.Sprintf("%+v", n.rotation)
	needed := n.rotation.Stage != backend.Still
	for _, l := range n.known {
		needed = needed || n.rotator().Rotates(l)
	}
	switch {
	case n.asked && !n.rotation.Beside && !needed:
		n.asked = false
		n.rotation = backend.Rotation{Stage: backend.Offered, Old: n.key, New: network.Secret{n.id * 8, byte(n.changes + 1)},
			Beside: true}
	case needed && !n.rotation.Beside:
		n.rotation.Beside = true
	case needed && !n.rotation.Ready:
		n.rotation.Ready = true
	case !needed && n.rotation.Beside:
		n.rotation = backend.Rotation{}
	case n.rotation.Ready:
		n.try(t, all)
	}
	if fmt.Sprintf("%+v", n.rotation) != before {
		n.remake(t)
	}
}

// try takes in what is known of the ways, and takes the next step of a change.
func (n *turner) try(t *testing.T, all []*turner) {
	if n.known[n] != n.advertised() {
		n.began = false
		return
	}
	if !n.began {
		n.began, n.confirmed = true, map[backend.Way]bool{}
	}
	var answered []backend.Way
	waits := false
	for _, peer := range all {
		if peer == n {
			continue
		}
		ways, mutual := n.rotator().Ways(n.known[peer])
		for _, w := range ways {
			back := peer.sendsBy(t, n)
			if n.delivers(t, w.Key.Link, peer) && peer.delivers(t, back, n) {
				answered = append(answered, w)
				n.confirmed[w] = n.confirmed[w] || !mutual || back == w.Key.Link
			}
			waits = waits || !n.confirmed[w]
		}
	}
	if n.rotation = n.rotation.With(answered); n.rotation.Stage == backend.Still || waits {
		return
	}
	n.began, n.rotation.Resumed = false, false
	switch n.rotation.Stage = n.rotation.Stage.Next(); n.rotation.Stage {
	case backend.Returning:
		n.key = n.rotation.New
	case backend.Still:
		n.rotation = backend.Rotation{Beside: true, Ready: true}
		n.changes++
	}
}

// restart is the start of a daemon: it reads all leases first, and goes on where it was.
func (n *turner) restart(t *testing.T, writes []turn) {
	n.dead, n.began = false, false
	n.learn(writes, len(writes))
	needed := n.rotation.Stage != backend.Still || n.rotation.Beside
	for _, l := range n.known {
		needed = needed || n.rotator().Rotates(l)
	}
	n.rotation.Answered, n.rotation.Beside, n.rotation.Ready = nil, needed, needed
	n.rotation.Resumed = n.rotation.Stage != backend.Still
	n.remake(t)
}

func (n *turner) learn(writes []turn, number int) {
	for ; n.read < min(number, len(writes)); n.read++ {
		n.known[writes[n.read].by] = writes[n.read].lease
		delete(n.peers, writes[n.read].by)
	}
}

// TestRotation plays changes of keys in a model of a cluster in which everything takes as long as chance will have it,
// daemons die for a while, and second devices of two nodes may not reach each other. At each moment, what each node sends
// to each other one arrives. In the end all keys have been changed, unless a node waits for one that it does not reach.
func TestRotation(t *testing.T) {
	const clusters, nodes, events = 40, 3, 300
	for seed := range uint64(clusters) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []*turner
		var writes []turn
		var log strings.Builder
		for i := range nodes {
			n := &turner{id: byte(i + 1), key: network.Secret{byte(i+1) * 8}, known: map[*turner]subnet.Lease{},
				publics: map[network.Secret]network.PublicKey{}}
			n.remake(t)
			n.lease = n.advertised()
			all, writes = append(all, n), append(writes, turn{n, n.lease})
		}
		for _, n := range all {
			n.learn(writes, len(writes))
		}
		blocked := r.IntN(4) == 0
		if blocked {
			all[0].blocked = all[1]
		}
		check := func() {
			for _, from := range all {
				for _, to := range all {
					if from == to {
						continue
					}
					if link := from.sendsBy(t, to); !from.delivers(t, link, to) {
						t.Fatalf("seed %d: node %d sends by %s, and node %d does not receive that: %s, %s\n%s", seed, from.id, link,
							to.id, from.known[to].Endpoints[0].Data, to.known[from].Endpoints[0].Data, &log)
					}
				}
			}
		}
		event := func(n *turner, kind int) {
			fmt.Fprintf(&log, "node %d: %s\n", n.id, []string{"learns", "writes", "steps", "is asked", "dies", "starts"}[kind])
			switch kind {
			case 0:
				n.learn(writes, n.read+1)
			case 1:
				if l := n.advertised(); !n.dead && l != n.lease {
					n.lease = l
					writes = append(writes, turn{n, l})
				}
			case 2:
				if !n.dead {
					n.step(t, all)
				}
			case 3:
				n.asked = n.asked || !n.dead && n.rotation.Stage == backend.Still
			case 4:
				n.dead = true
			case 5:
				if n.dead || r.IntN(2) == 0 {
					n.restart(t, writes)
				}
			}
			fmt.Fprintf(&log, "  stage %q, beside %t, ready %t\n", n.rotation.Stage, n.rotation.Beside, n.rotation.Ready)
			check()
		}
		for range events {
			kind := []int{0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 5}[r.IntN(12)]
			if n := all[r.IntN(nodes)]; kind != 0 || !n.dead {
				event(n, kind)
			}
		}
		for _, n := range all {
			event(n, 5)
		}
		for range 40 {
			for _, n := range all {
				for _, kind := range []int{0, 0, 0, 1, 2} {
					event(n, kind)
				}
			}
		}
		for _, n := range all {
			if !blocked && (n.rotation.Stage != backend.Still || n.rotation.Beside || n.asked) {
				t.Fatalf("seed %d: node %d is left in stage %q, beside %t, asked %t:\n%s", seed, n.id, n.rotation.Stage,
					n.rotation.Beside, n.asked, &log)
			}
		}
	}
}
