package explain

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// fakeKernel answers from maps. An address that routes does not hold has no route.
type fakeKernel struct {
	routes map[string]network.Hop
	shadow string
	broken error // of Shadowing
	links  map[string]string
	seen   map[string]string
	mute   error // of Answers
}

func (k fakeKernel) Route(a netip.Addr) (network.Hop, error) {
	if h, ok := k.routes[a.String()]; ok {
		return h, nil
	}
	return network.Hop{}, errors.New("no route to " + a.String())
}

func (k fakeKernel) Flow(f network.Flow) (network.Hop, error) { return k.Route(f.To) }

func (k fakeKernel) Shadowing(netip.Addr, network.RouteKey) (string, bool, error) {
	return k.shadow, k.shadow != "", k.broken
}
func (k fakeKernel) LinkWith(a netip.Addr) string { return k.links[a.String()] }
func (k fakeKernel) Answers(a netip.Addr, link string) (bool, error) {
	return k.seen[a.String()] == link, k.mute
}
func routes(pairs ...string) (all map[string]network.Hop) { return routesWith(network.Hop{}, pairs...) }
func routesWith(h network.Hop, pairs ...string) map[string]network.Hop {
	all := map[string]network.Hop{}
	for p := range slices.Chunk(pairs, 2) {
		h.Link = p[1]
		all[p[0]] = h
	}
	return all
}

// peersKernel sends a peer's address into the tunnel.
func peersKernel(address string) fakeKernel {
	return fakeKernel{routes: routes(address, "flannel.1", "172.31.0.12", "eth0")}
}

// overlay is a node with everything in place.
func overlay() Facts {
	return Facts{
		Family: "IPv4", Network: netip.MustParsePrefix("10.5.0.0/16"), Subnet: netip.MustParsePrefix("10.5.1.0/24"), Lease: "10.5.1.0-24",
		Uplink: "eth0", MTU: 1500, Own: []string{"flannel.1"}, Masquerade: true, Filter: status.Filter{InForce: true, Mode: "nftables"},
	}
}

// withPeer adds the node that 10.5.2.9 belongs to.
func withPeer(change func(*Facts)) Facts {
	f := overlay()
	f.Claims = []Claim{{Lease: "10.5.2.0-24", Node: "node2"}}
	f.Peer = &Peer{
		Name: "node2", Subnet: netip.MustParsePrefix("10.5.2.0/24"), PublicIP: netip.MustParseAddr("172.31.0.12"),
		Underlay: network.Flow{To: netip.MustParseAddr("172.31.0.12")}, Path: "over VXLAN, flannel.1", Link: "flannel.1",
		Route:   network.RouteKey{Prefix: netip.MustParsePrefix("10.5.2.0/24")},
		Entries: []network.Comparison{{Kind: "route", Desired: []string{"ip route replace 10.5.2.0/24"}, InSync: true}},
		Device:  &Device{Text: "flannel.1 local 172.31.0.11 port 8472", MTU: 1450, InSync: true},
	}
	if change != nil {
		change(&f)
	}
	return f
}

func TestAddress(t *testing.T) {
	good := fakeKernel{routes: routes("10.5.2.9", "flannel.1", "172.31.0.12", "eth0")}
	with := func(f func(*fakeKernel)) fakeKernel {
		k := good
		f(&k)
		return k
	}
	local := network.Hop{Local: true}
	for _, tt := range []struct {
		name    string
		address string
		facts   Facts
		kernel  fakeKernel
		ok      bool
		verdict string
		steps   []string // kind, mark, text, note, of some of them
	}{
		{"no config", "10.5.2.9", Facts{Waiting: true}, good, false, "this node does not know the network config yet: run selvaged status", nil},
		{"family off", "fd00::1", Facts{Family: "IPv6"}, good, false, "the network config disables IPv6", nil},

		{"peer", "10.5.2.9", withPeer(nil), good, true, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{
			"lease ok 10.5.2.0-24 # node2", "route ok ip route replace 10.5.2.0/24", "route ok the kernel: 10.5.2.9 dev flannel.1",
			"device ok flannel.1 local 172.31.0.11 port 8472", "mtu - 1450 # of flannel.1; the uplink has 1500",
			"uplink - 172.31.0.12 dev eth0 # to node2", "filter ok inside the overlay: not masqueraded # nftables",
		}},
		{"probed peer", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Reach = status.Reach{State: status.Reachable, RTT: 310 * time.Microsecond} }), good, true,
			"10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{"probe ok answered # in 310µs"}},
		{"WireGuard peer", "10.5.2.9", withPeer(func(f *Facts) {
			f.Peer.Session = &Session{Handshake: 12400 * time.Millisecond, Received: 5000, Sent: 6000}
		}), good, true, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1",
			[]string{"session - last handshake 12s ago # 5000 bytes received, 6000 sent"}},
		{"silent WireGuard peer", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Session = &Session{Handshake: -1, Sent: 148, Silent: true} }),
			good, true, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1",
			[]string{"session missing no handshake yet # packets are not answered; 0 bytes received, 148 sent"}},
		{"fast peer", "10.5.2.9", withPeer(func(f *Facts) {
			f.Peer.Fast, f.Fast = true, &status.FastPath{InUse: true, Slow: []status.SlowPort{{Port: "veth1", Why: "a queue"}}}
		}), good, true, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{
			"fast path ok established connections", "fast path - not by veth1 # a queue",
		}},
		{"peer that is not in the fast path", "10.5.2.9", withPeer(func(f *Facts) { f.Fast = &status.FastPath{InUse: true} }), good, true,
			"10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{"fast path - not to this node # its programs do not know the subnet"}},
		{"fast direct peer", "10.5.2.9", withPeer(func(f *Facts) {
			f.Peer.Device, f.Peer.Link, f.Peer.Path = nil, "eth0", "directly, through eth0"
			f.Peer.Fast, f.Fast = true, &status.FastPath{InUse: true}
		}), with(func(k *fakeKernel) { k.routes = routes("10.5.2.9", "eth0", "172.31.0.12", "eth0") }), true,
			"10.5.2.9 belongs to node2, reached directly, through eth0", []string{"fast path ok established connections"}},
		{"slow path", "10.5.2.9", withPeer(func(f *Facts) { f.Fast = &status.FastPath{Why: "too old"} }), good, true,
			"10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{"fast path - not in use # too old"}},
		{"peer that does not answer", "10.5.2.9", withPeer(func(f *Facts) {
			f.Peer.Reach = status.Reach{State: status.Unreachable, Since: time.Date(2030, 1, 1, 12, 30, 5, 0, time.UTC)}
		}), good, false, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1, which does not answer: selvaged doctor finds out why",
			[]string{"probe missing not answered # since 12:30:05"}},
		{"direct peer", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Device, f.Peer.Link, f.Peer.Path = nil, "eth0", "directly, through eth0" }),
			with(func(k *fakeKernel) { k.routes = routes("10.5.2.9", "eth0", "172.31.0.12", "eth0") }), true,
			"10.5.2.9 belongs to node2, reached directly, through eth0", []string{"mtu - 1500 # of eth0"}},
		{"entry missing", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Entries[0].InSync = false }), good, false,
			"10.5.2.9 belongs to node2, but not all entries of the path are in sync", []string{"route missing ip route replace 10.5.2.0/24"}},
		{"entry changed", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Entries[0].InSync, f.Peer.Entries[0].Actual = false, []string{"ip route x"} }), good, false,
			"10.5.2.9 belongs to node2, but not all entries of the path are in sync",
			[]string{"route missing ip route replace 10.5.2.0/24 # actual: ip route x"}},
		{"shadowed", "10.5.2.9", withPeer(nil),
			fakeKernel{routes: routes("10.5.2.9", "eth0", "172.31.0.12", "eth0"), shadow: "route 10.5.2.9/32 dev eth0"}, false,
			"10.5.2.9 belongs to node2, but a foreign route sends packets for it out of eth0",
			[]string{"route foreign the kernel: 10.5.2.9 dev eth0 # because of route 10.5.2.9/32 dev eth0"}},
		{"blackholed by a rule", "10.5.2.9", withPeer(nil), fakeKernel{routes: routes("172.31.0.12", "eth0")}, false,
			"10.5.2.9 belongs to node2, but a foreign route keeps packets from it",
			[]string{"route foreign the kernel: no route to 10.5.2.9 # no route explains it: see ip rule"}},
		{"routes unreadable", "10.5.2.9", withPeer(nil), fakeKernel{routes: routes("172.31.0.12", "eth0"), broken: errors.New("EINTR")}, false,
			"10.5.2.9 belongs to node2, but a foreign route keeps packets from it",
			[]string{"route foreign the kernel: no route to 10.5.2.9 # see ip route and ip rule"}},
		{"device changed", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Device.InSync = false }), good, false,
			"device flannel.1 differs from its desired state", []string{"device missing flannel.1 local 172.31.0.11 port 8472"}},
		{"no way to the node", "10.5.2.9", withPeer(nil), with(func(k *fakeKernel) { k.routes = routes("10.5.2.9", "flannel.1") }), false,
			"10.5.2.9 belongs to node2, but this node has no route to its public IP 172.31.0.12",
			[]string{"uplink missing 172.31.0.12 # no route to 172.31.0.12"}},
		{"by another uplink", "10.5.2.9", withPeer(nil), with(func(k *fakeKernel) { k.routes = routes("10.5.2.9", "flannel.1", "172.31.0.12", "eth1") }), false,
			"10.5.2.9 belongs to node2, but packets to its public IP 172.31.0.12 leave by eth1, and not by the uplink eth0",
			[]string{"uplink foreign 172.31.0.12 dev eth1 # not by eth0"}},
		{"by another uplink, and it works", "10.5.2.9", withPeer(func(f *Facts) { f.Peer.Reach.State = status.Reachable }),
			with(func(k *fakeKernel) { k.routes = routes("10.5.2.9", "flannel.1", "172.31.0.12", "eth1") }), true,
			"10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{"uplink foreign 172.31.0.12 dev eth1 # not by eth0"}},
		{"foreign filter", "10.5.2.9", withPeer(func(f *Facts) { f.Filter.Foreign = []status.Text{"chain x drops"} }), good, false,
			"10.5.2.9 belongs to node2, but a foreign packet filter on this node drops what is sent to it", []string{"filter foreign chain x drops"}},
		{"rules not in force", "10.5.2.9", withPeer(func(f *Facts) { f.Filter.InForce = false }), good, true,
			"10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{"filter missing inside the overlay: not masqueraded # nftables"}},
		{"peer without a route", "10.5.2.9", withPeer(func(f *Facts) { *f.Peer = Peer{Name: "node2", Path: "by something new"} }), good, true,
			"10.5.2.9 belongs to node2, reached by something new", nil},
		{"grace period", "10.5.2.9", withPeer(func(f *Facts) {
			f.Claims = []Claim{
				{Lease: "10.5.2.0-25", Reason: errors.New("overlaps")},
				{Lease: "10.5.2.0-24", Until: time.Date(2030, 1, 1, 12, 30, 5, 0, time.UTC)},
			}
		}), good, true, "10.5.2.9 belongs to node2, reached over VXLAN, flannel.1", []string{
			"lease foreign 10.5.2.0-25 # rejected: overlaps", "lease missing 10.5.2.0-24 # withdrawn; its entries are retained until 12:30:05",
		}},

		{"own pod", "10.5.1.7", overlay(), fakeKernel{routes: routes("10.5.1.7", "cni0"), seen: map[string]string{"10.5.1.7": "cni0"}}, true,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24: a pod on cni0",
			[]string{"lease ok 10.5.1.0-24 # this node's own", "route - 10.5.1.7 dev cni0 # created with the pods' bridge", "neighbour - 10.5.1.7 dev cni0"}},
		{"own address that is unused", "10.5.1.7", overlay(), fakeKernel{routes: routes("10.5.1.7", "cni0")}, false,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24, and no pod on cni0 answers for it: the address is unused, or its pod is cut off",
			[]string{"neighbour missing 10.5.1.7 dev cni0 # it does not answer ARP or ND"}},
		{"own pod that cannot be asked", "10.5.1.7", overlay(), fakeKernel{routes: routes("10.5.1.7", "cni0"), mute: errors.New("EPERM")}, true,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24: a pod on cni0", []string{"neighbour - 10.5.1.7 dev cni0 # EPERM"}},
		{"own broadcast", "10.5.1.255", overlay(), fakeKernel{routes: routesWith(network.Hop{Local: true, Broadcast: true}, "10.5.1.255", "cni0")}, false,
			"10.5.1.255 is the broadcast address of this node's subnet 10.5.1.0/24: no pod can have it", nil},
		{"own broadcast without a bridge", "10.5.1.255", overlay(), fakeKernel{routes: routes("10.5.1.255", "eth0")}, false,
			"10.5.1.255 is the broadcast address of this node's subnet 10.5.1.0/24: no pod can have it", nil},
		{"peer's broadcast", "10.5.2.255", withPeer(nil), peersKernel("10.5.2.255"), false,
			"10.5.2.255 is the broadcast address of node2's subnet 10.5.2.0/24: no pod can have it", nil},
		{"peer's VTEP", "10.5.2.0", withPeer(nil), peersKernel("10.5.2.0"), true,
			"10.5.2.0 belongs to node2: the address of its overlay device, reached over VXLAN, flannel.1", nil},
		{"peer's network address without a tunnel", "10.5.2.0", withPeer(func(f *Facts) { f.Peer.Device = nil }), peersKernel("10.5.2.0"), false,
			"10.5.2.0 is the network address of node2's subnet 10.5.2.0/24: no pod can have it", nil},
		{"peer's gateway", "10.5.2.1", withPeer(nil), peersKernel("10.5.2.1"), true,
			"10.5.2.1 belongs to node2: the gateway of its pods, reached over VXLAN, flannel.1", nil},
		{"broadcast of the underlay", "172.31.0.255", overlay(), fakeKernel{routes: routesWith(network.Hop{Local: true, Broadcast: true}, "172.31.0.255", "eth0")},
			false, "172.31.0.255 is a broadcast address of the link behind eth0: no host has it, and packets of pods for it are dropped", nil},

		{"own address", "10.5.1.1", overlay(), fakeKernel{routes: routesWith(local, "10.5.1.1", "lo"), links: map[string]string{"10.5.1.1": "cni0"}}, true,
			"10.5.1.1 belongs to this node's subnet 10.5.1.0/24, and is the node's own, on cni0", nil},
		{"no bridge", "10.5.1.7", overlay(), fakeKernel{}, false,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24, and no interface has that subnet: no pod was started here yet, or its bridge is gone",
			[]string{"route missing none # no route to 10.5.1.7"}},
		{"bridge gone, default route", "10.5.1.7", overlay(), fakeKernel{routes: routes("10.5.1.7", "eth0")}, false,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24, and packets for it leave through eth0: no pod was started here yet, or its bridge is gone", nil},
		{"bridge gone, flannel's route", "10.5.1.7", overlay(), fakeKernel{routes: routes("10.5.1.7", "flannel.1")}, false,
			"10.5.1.7 belongs to this node's subnet 10.5.1.0/24, and packets for it leave through flannel.1: " +
				"no pod was started here yet, or its bridge is gone", nil},

		{"unleased", "10.5.9.9", overlay(), fakeKernel{routes: routes("10.5.9.9", "eth0")}, false, "no node has a lease on 10.5.9.9",
			[]string{"lease missing none", "route - 10.5.9.9 dev eth0 # the route that packets for it take"}},
		{"rejected", "10.5.9.9", func() Facts {
			f := overlay()
			f.Claims = []Claim{{Lease: "10.5.9.0-24", Reason: errors.New("backend is \"udp\"")}}
			return f
		}(), fakeKernel{}, false, "the lease on 10.5.9.9 is rejected",
			[]string{`lease foreign 10.5.9.0-24 # rejected: backend is "udp"`, "route - none # no route to 10.5.9.9"}},

		{"outside", "192.0.2.1", overlay(), fakeKernel{routes: routes("192.0.2.1", "eth0")}, true,
			"192.0.2.1 is outside the overlay: pods on this node reach it through eth0, with this node's address",
			[]string{"filter ok masquerade what leaves the overlay # nftables"}},
		{"outside, not masqueraded", "192.0.2.1", func() Facts { f := overlay(); f.Masquerade = false; return f }(),
			fakeKernel{routes: routes("192.0.2.1", "eth0")}, true, "192.0.2.1 is outside the overlay: pods on this node reach it through eth0", nil},
		{"a peer's public IP", "172.31.0.12", func() Facts { f := overlay(); f.PeerAt, f.PeerKey = "node2", "10.5.2.0-24"; return f }(), good, true,
			"172.31.0.12 is outside the overlay: pods on this node reach it through eth0, with this node's address",
			[]string{"lease - 10.5.2.0-24 # public IP of node2"}},
		{"outside, no route", "192.0.2.1", overlay(), fakeKernel{}, false, "192.0.2.1 is outside the overlay, and this node has no route to it", nil},
		{"loopback", "127.0.0.1", overlay(), fakeKernel{routes: routesWith(local, "127.0.0.1", "lo")}, true,
			"127.0.0.1 is outside the overlay: for a pod, it is the pod itself", nil},
		{"the node", "172.31.0.11", overlay(), fakeKernel{routes: routesWith(local, "172.31.0.11", "lo"), links: map[string]string{"172.31.0.11": "eth0"}},
			true, "172.31.0.11 is this node's own, on eth0: pods on this node reach it with their own address",
			[]string{"filter - none: the packet stays on this node"}},
		{"multicast", "239.1.2.3", overlay(), fakeKernel{routes: routes("239.1.2.3", "eth0")}, true,
			"239.1.2.3 is a multicast group outside the overlay: pods on this node reach it only if something here forwards multicast",
			[]string{"filter ok multicast is not masqueraded # nftables"}},
		{"link-local", "169.254.7.7", overlay(), fakeKernel{routes: routes("169.254.7.7", "eth0")}, true,
			"169.254.7.7 is outside the overlay and link-local: pods on this node cannot reach others by it", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := Address(netip.MustParseAddr(tt.address), tt.facts, tt.kernel)
			if e.OK != tt.ok || string(e.Verdict) != tt.verdict {
				t.Errorf("%t, %q\nwant %t, %q", e.OK, e.Verdict, tt.ok, tt.verdict)
			}
			var got []string
			for _, s := range e.Steps {
				text := s.Kind + " " + string(s.Mark) + " " + string(s.Text)
				if s.Note != "" {
					text += " # " + string(s.Note)
				}
				got = append(got, text)
			}
			for _, want := range tt.steps {
				if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("no step %q in\n%s", want, strings.Join(got, "\n"))
				}
			}
		})
	}
}

func TestRoles(t *testing.T) {
	for _, tt := range []struct {
		address, subnet string
		want            role
	}{
		{"10.5.2.0", "10.5.2.0/24", firstAddress}, {"10.5.2.1", "10.5.2.0/24", gateway}, {"10.5.2.2", "10.5.2.0/24", podAddress},
		{"10.5.2.255", "10.5.2.0/24", broadcast}, {"10.5.2.3", "10.5.2.0/30", broadcast}, {"10.5.2.1", "10.5.2.0/31", podAddress},
		{"10.5.2.0", "10.5.2.0/32", podAddress}, {"255.255.255.255", "255.255.255.0/24", broadcast},
		{"fd00::", "fd00::/64", firstAddress}, {"fd00::1", "fd00::/64", gateway}, {"fd00::ffff:ffff:ffff:ffff", "fd00::/64", podAddress},
	} {
		if got := roleOf(netip.MustParseAddr(tt.address), netip.MustParsePrefix(tt.subnet)); got != tt.want {
			t.Errorf("%s in %s: %d, want %d", tt.address, tt.subnet, got, tt.want)
		}
	}
	if roleOf(netip.MustParseAddr("10.5.2.0"), netip.Prefix{}) != podAddress {
		t.Error("a role in no subnet")
	}
}
