package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

const device = "flannel.1"

// vxlan is a node's own device.
func vxlan() Link {
	return Link{
		Kind: KindVXLAN, Settings: VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1")}, MTU: 1450,
		MAC: mac("02:00:00:00:00:01"), Alias: Alias, Up: true,
	}
}

// withVNI is a VXLAN device like l with another VNI.
func withVNI(l Link, vni uint32) Link {
	v := vxlanOf(l)
	v.VNI = vni
	l.Settings = v
	return l
}

// vxlanOf returns the settings of a VXLAN device, which are zero for a device of another kind.
func vxlanOf(l Link) VXLAN {
	v, _ := l.Settings.(VXLAN)
	return v
}

// nodeState is what a node needs for itself.
func nodeState(name string, l Link) State {
	return State{
		Links:     []Item[string, Link]{{name, l}},
		Addresses: []Item[AddressKey, Address]{{AddressKey{name, prefix("10.5.0.0/32")}, Address{}}},
	}
}

// peerState is what a peer needs: one entry in each of three tables.
func peerState(link string, subnet netip.Prefix, m MAC, remote netip.Addr) State {
	gateway := subnet.Addr()
	return State{
		FDB:        []Item[FDBKey, FDB]{{FDBKey{link, m}, FDB{Remote: remote, Permanent: true}}},
		Neighbours: []Item[NeighbourKey, Neighbour]{{NeighbourKey{link, gateway}, Neighbour{MAC: m, Permanent: true}}},
		Routes: []Item[RouteKey, Route]{{RouteKey{Prefix: subnet},
			Route{Link: link, Gateway: gateway, OnLink: true, Protocol: RouteProtocol, Type: 1}}},
	}
}

// byID returns the state with its routes going by nexthop objects.
func byID(s State) State {
	s.Routes = slices.Clone(s.Routes)
	for i, x := range s.Routes {
		s.Routes[i].Value = s.Via(x.Value)
	}
	return s
}

// peer is the state of the i-th peer.
func peer(i int) State {
	a, b, c := byte(i>>16), byte(i>>8), byte(i)
	return peerState(device,
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + a, b, c}), 32),
		MAC{2, 1, 0, a, b, c},
		netip.AddrFrom4([4]byte{172, 16 + a, b, c}))
}

// believe tells the tables that the kernel holds what is wanted.
func believe(t *Tables) {
	believeOf(t.Links)
	believeOf(t.Addresses)
	believeOf(t.FDB)
	believeOf(t.Neighbours)
	believeOf(t.Nexthops)
	believeOf(t.Routes)
}

func believeOf[K, V comparable](t *Table[K, V]) {
	for k, c := range t.Pending {
		if c.Wanted {
			t.Observe(k, c.Want)
		} else {
			t.ObserveGone(k)
		}
	}
}

// wants returns the keys of all kinds that are wanted, as strings.
func wants(t *Tables) []string {
	var s []string
	s = append(s, wantsOf(t.Links, func(k string) string { return k })...)
	s = append(s, wantsOf(t.Addresses, AddressKey.String)...)
	s = append(s, wantsOf(t.FDB, FDBKey.String)...)
	s = append(s, wantsOf(t.Neighbours, NeighbourKey.String)...)
	s = append(s, wantsOf(t.Nexthops, idString)...)
	return append(s, wantsOf(t.Routes, RouteKey.String)...)
}

func idString(id NexthopID) string { return fmt.Sprint("id ", uint32(id)) }

func wantsOf[K, V comparable](t *Table[K, V], text func(K) string) []string {
	var s []string
	for k, c := range t.All {
		if c.Wanted {
			s = append(s, text(k))
		}
	}
	slices.Sort(s)
	return s
}

func TestReplace(t *testing.T) {
	tables := NewTables()
	o := Owner{Name: "node-2", Age: 4}
	subnet, remote := prefix("10.5.29.0/24"), netip.MustParseAddr("192.0.2.7")
	before := byID(peerState(device, subnet, MAC{2, 1}, remote))
	after := byID(peerState(device, subnet, MAC{2, 9}, remote)) // a new MAC: a new FDB key, the other three keys stay

	tables.Replace(o, State{}, before)
	want := []string{"02:01:00:00:00:00 dev flannel.1", "10.5.29.0 dev flannel.1", "id 168107264", "10.5.29.0/24"}
	if got := wants(tables); !slices.Equal(got, want) {
		t.Fatalf("wanted are %v, want %v", got, want)
	}
	believe(tables)
	tables.Replace(o, before, before)
	if n := tables.Pending(); n != 0 {
		t.Errorf("the same again leaves %d pending", n)
	}

	tables.Replace(o, before, after)
	want[0] = "02:09:00:00:00:00 dev flannel.1"
	if got := wants(tables); !slices.Equal(got, want) {
		t.Errorf("wanted are %v, want %v", got, want)
	}
	counts := map[string]Count{
		"link": {}, "bridge": {}, "port": {}, "address": {}, "fdb": {Wanted: 1, Pending: 1},
		"neighbour": {Wanted: 1, Pending: 1}, "nexthop": {Wanted: 1, Present: 1}, "route": {Wanted: 1, Present: 1},
		"sysctl": {}, "vtep": {}, "fast-peer": {Optional: true}, "program": {Optional: true},
		"wireguard": {}, "wireguard-peer": {}, "allowed-ip": {},
	}
	if got := tables.Counts(); !maps.Equal(got, counts) {
		t.Errorf("counts are %v, want %v: the old FDB entry is on a device not known to be ours", got, counts)
	}

	tables.Replace(o, after, State{})
	if got := wants(tables); got != nil {
		t.Errorf("wanted are %v, want none", got)
	}
}

// TestReplaceInGrace: a node gave up its subnet and claimed another with the same MAC; what the old lease still holds
// gives way where the two meet, and is back where it stood if the new one goes first.
func TestReplaceInGrace(t *testing.T) {
	tables := NewTables()
	live := Owner{Name: "10.5.29.0-24", Age: 4}
	grace := Owner{Name: "10.5.29.0-24", Age: 4, Grace: true}
	next := Owner{Name: "10.5.30.0-24", Age: 8}
	m := MAC{2, 1}
	was := peerState(device, prefix("10.5.29.0/24"), m, netip.MustParseAddr("192.0.2.7"))
	is := peerState(device, prefix("10.5.30.0/24"), m, netip.MustParseAddr("192.0.2.8"))
	remote := func() string { return tables.FDB.Get(FDBKey{device, m}).Want.Remote.String() }
	for _, step := range []struct {
		name       string
		do         func()
		remote     string
		fdb, route int // wanted
	}{
		{"first lease", func() { tables.Replace(live, State{}, was) }, "192.0.2.7", 1, 1},
		{"second while the first is live", func() { tables.Replace(next, State{}, is) }, "192.0.2.7", 1, 2},
		{"the first in grace", func() { tables.Replace(grace, was, was) }, "192.0.2.8", 1, 2},
		{"the second gone", func() { tables.Replace(next, is, State{}) }, "192.0.2.7", 1, 1},
		{"the second back", func() { tables.Replace(next, State{}, is) }, "192.0.2.8", 1, 2},
		{"the first at its end", func() { tables.Replace(grace, was, State{}) }, "192.0.2.8", 1, 1},
	} {
		step.do()
		c := tables.Counts()
		if remote() != step.remote || c["fdb"].Wanted != step.fdb || c["route"].Wanted != step.route {
			t.Errorf("%s: remote %s, counts %v; want %s, %d FDB, %d routes", step.name, remote(), c, step.remote, step.fdb, step.route)
		}
	}
}

// TestOwnership: what is there and wanted by nobody is pending if, and only if, it is selvage's own.
func TestOwnership(t *testing.T) {
	foreign := withVNI(vxlan(), 42)
	foreign.Alias = ""
	staleLink := withVNI(vxlan(), 7)
	otherMark := foreign
	otherMark.Alias = "somebody's"
	for _, tt := range []struct {
		name    string
		observe func(*Tables)
		pending int
	}{
		{"device with our alias", func(t *Tables) { t.Links.Observe("old", staleLink) }, 1},
		{"VXLAN device without alias", func(t *Tables) { t.Links.Observe("vx42", foreign) }, 0},
		{"VXLAN device with another alias", func(t *Tables) { t.Links.Observe("vx42", otherMark) }, 0},
		{"address on our device", func(t *Tables) { t.Addresses.Observe(AddressKey{device, prefix("10.5.9.0/32")}, Address{}) }, 1},
		{"IPv6 address on our device", func(t *Tables) { t.Addresses.Observe(AddressKey{device, prefix("fd00::1/64")}, Address{}) }, 1},
		{"IPv6 link-local address on our device", func(t *Tables) { t.Addresses.Observe(AddressKey{device, prefix("fe80::1/64")}, Address{}) }, 0},
		{"IPv4 link-local address on our device", func(t *Tables) { t.Addresses.Observe(AddressKey{device, prefix("169.254.1.1/16")}, Address{}) }, 0},
		{"address elsewhere", func(t *Tables) { t.Addresses.Observe(AddressKey{"eth0", prefix("10.5.9.0/32")}, Address{}) }, 0},
		{"permanent FDB entry on our device", func(t *Tables) { t.FDB.Observe(FDBKey{device, MAC{2}}, FDB{Permanent: true}) }, 1},
		{"learned FDB entry on our device", func(t *Tables) { t.FDB.Observe(FDBKey{device, MAC{2}}, FDB{}) }, 0},
		{"permanent FDB entry elsewhere", func(t *Tables) { t.FDB.Observe(FDBKey{"vx42", MAC{2}}, FDB{Permanent: true}) }, 0},
		{"permanent neighbour on our device", func(t *Tables) {
			t.Neighbours.Observe(NeighbourKey{device, netip.MustParseAddr("10.5.9.0")}, Neighbour{Permanent: true})
		}, 1},
		{"resolved neighbour on our device", func(t *Tables) {
			t.Neighbours.Observe(NeighbourKey{device, netip.MustParseAddr("10.5.9.0")}, Neighbour{MAC: MAC{2}})
		}, 0},
		{"permanent neighbour elsewhere", func(t *Tables) {
			t.Neighbours.Observe(NeighbourKey{"eth0", netip.MustParseAddr("10.5.9.0")}, Neighbour{Permanent: true})
		}, 0},
		{"nexthop with our protocol", func(t *Tables) { t.Nexthops.Observe(7, Nexthop{Link: "eth0", Protocol: RouteProtocol}) }, 1},
		{"group of nexthops with our protocol", func(t *Tables) { t.Nexthops.Observe(7, Nexthop{Protocol: RouteProtocol, Odd: true}) }, 1},
		{"nexthop on our device", func(t *Tables) { t.Nexthops.Observe(7, Nexthop{Link: device, Protocol: 3}) }, 0},
		{"route out of our device", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Link: device, Protocol: 3})
		}, 1},
		{"the kernel's route out of our device", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Link: device, Protocol: 2})
		}, 0},
		{"route with our protocol elsewhere", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Link: "eth0", Protocol: RouteProtocol})
		}, 1},
		{"blackhole with our protocol", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Protocol: RouteProtocol, Type: 6})
		}, 1},
		{"route elsewhere", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Link: "eth0", Protocol: 3})
		}, 0},
		{"blackhole", func(t *Tables) {
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Protocol: 3, Type: 6})
		}, 0},
	} {
		tables := NewTables()
		tables.Links.Want(Owner{Name: "self"}, device, vxlan())
		tables.Links.Observe(device, vxlan())
		tt.observe(tables)
		if got := tables.Pending(); got != tt.pending {
			t.Errorf("%s: %d pending, want %d", tt.name, got, tt.pending)
		}
	}
}

// TestOwnershipFollowsTheDevice: what is seen on a device before the device is ours counts from when it is, and no
// longer than it is, in whatever order things become known.
func TestOwnershipFollowsTheDevice(t *testing.T) {
	self := Owner{Name: "self"}
	flannels := vxlan() // as flannel made it: the right kind, no mark
	flannels.Alias = ""
	others := withVNI(flannels, 42) // a foreign one under the same name
	dummy := Link{Kind: "dummy", Up: true}
	unmarked := vxlan()
	unmarked.Alias = ""
	for _, tt := range []struct {
		name string
		do   func(*Tables)
		owns bool
	}{
		{"nothing known of the device", func(*Tables) {}, false},
		{"wanted, not there", func(t *Tables) { t.Links.Want(self, device, vxlan()) }, true},
		{"there and ours", func(t *Tables) { t.Links.Observe(device, vxlan()) }, true},
		{"ours, wanted and then not", func(t *Tables) {
			t.Links.Want(self, device, vxlan())
			t.Links.Observe(device, vxlan())
			t.Links.Unwant("self", device)
		}, true},
		{"flannel's, not wanted", func(t *Tables) { t.Links.Observe(device, flannels) }, false},
		{"flannel's, then wanted", func(t *Tables) { t.Links.Observe(device, flannels); t.Links.Want(self, device, vxlan()) }, true},
		{"flannel's, wanted, then not", func(t *Tables) {
			t.Links.Observe(device, flannels)
			t.Links.Want(self, device, vxlan())
			t.Links.Unwant("self", device)
		}, false},
		{"wanted, but another VXLAN has the name", func(t *Tables) { t.Links.Want(self, device, vxlan()); t.Links.Observe(device, others) }, false},
		{"wanted, but a dummy has the name", func(t *Tables) { t.Links.Want(self, device, vxlan()); t.Links.Observe(device, dummy) }, false},
		{"the dummy is gone again", func(t *Tables) {
			t.Links.Want(self, device, vxlan())
			t.Links.Observe(device, dummy)
			t.Links.ObserveGone(device)
		}, true},
		{"ours, then somebody takes the mark off while nobody wants it", func(t *Tables) {
			t.Links.Observe(device, vxlan())
			t.Links.Observe(device, unmarked)
		}, false},
		{"renamed away", func(t *Tables) { t.Links.Observe(device, vxlan()); t.Links.ObserveGone(device) }, false},
	} {
		before, after := NewTables(), NewTables()
		see := func(t *Tables) {
			t.Addresses.Observe(AddressKey{device, prefix("10.5.9.0/32")}, Address{})
			t.FDB.Observe(FDBKey{device, MAC{2}}, FDB{Permanent: true})
			t.Neighbours.Observe(NeighbourKey{device, netip.MustParseAddr("10.5.9.0")}, Neighbour{Permanent: true})
			t.Routes.Observe(RouteKey{Prefix: prefix("10.9.0.0/24")}, Route{Link: device, Protocol: 3})
		}
		see(before)
		tt.do(before)
		tt.do(after)
		see(after)
		want := 0
		if tt.owns {
			want = 1
		}
		for when, tables := range map[string]*Tables{"before": before, "after": after} {
			if got := tables.OwnsLink(device); got != tt.owns {
				t.Errorf("%s: OwnsLink is %t", tt.name, got)
			}
			for kind, c := range tables.Counts() {
				byDevice := kind == "address" || kind == "fdb" || kind == "neighbour" || kind == "route"
				if byDevice && c != (Count{Present: want, Unwanted: want}) {
					t.Errorf("%s: %s seen %s that: %+v, want %d to go, and nothing else", tt.name, kind, when, c, want)
				}
			}
		}
	}
}

func TestLinkGone(t *testing.T) {
	tables := NewTables()
	self := Owner{Name: "self"}
	tables.Replace(self, State{}, nodeState(device, vxlan()))
	tables.Replace(Owner{Name: "peer"}, State{}, byID(peer(1)))
	var elsewhere State
	direct := elsewhere.Via(Route{Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.7"), Protocol: RouteProtocol})
	elsewhere.Routes = []Item[RouteKey, Route]{{RouteKey{Prefix: prefix("10.7.0.0/24")}, direct}}
	tables.Replace(self, State{}, elsewhere)
	believe(tables)
	tables.FDB.Observe(FDBKey{device, MAC{9}}, FDB{})
	tables.FDB.Observe(FDBKey{"vx42", MAC{9}}, FDB{Permanent: true})
	tables.Nexthops.Observe(7, Nexthop{Link: device, Protocol: 3})
	if n := tables.Pending(); n != 0 {
		t.Fatalf("%d pending before", n)
	}

	tables.LinkGone(device)
	want := map[string]Count{
		"link": {Wanted: 1, Pending: 1}, "bridge": {}, "port": {}, "address": {Wanted: 1, Pending: 1},
		"fdb": {Wanted: 1, Pending: 1}, "neighbour": {Wanted: 1, Pending: 1}, "nexthop": {Wanted: 2, Present: 1, Pending: 1},
		"route": {Wanted: 2, Present: 1, Pending: 1}, "sysctl": {}, "vtep": {},
		"fast-peer": {Optional: true}, "program": {Optional: true},
		"wireguard": {}, "wireguard-peer": {}, "allowed-ip": {},
	}
	if got := tables.Counts(); !maps.Equal(got, want) {
		t.Errorf("counts are %v, want %v", got, want)
	}
	if c := tables.FDB.Get(FDBKey{"vx42", MAC{9}}); !c.Present {
		t.Error("what hangs on another device is gone as well")
	}
	tables.LinkGone(device)
	tables.LinkGone("vx42")
	if got := tables.Counts()["fdb"]; got != (Count{Wanted: 1, Pending: 1}) {
		t.Errorf("FDB counts are %v after the other device went too", got)
	}
}

func TestDefaultMetric(t *testing.T) {
	if got := DefaultMetric(prefix("10.5.0.0/16")); got != 0 {
		t.Errorf("IPv4: %d", got)
	}
	if got := DefaultMetric(prefix("fd00::/64")); got != 1024 {
		t.Errorf("IPv6: %d", got)
	}
}

func TestConnectedMetric(t *testing.T) {
	if four, six := ConnectedMetric(prefix("10.5.0.0/16")), ConnectedMetric(prefix("fd00::/64")); four != 0 || six != 256 {
		t.Errorf("%d and %d", four, six)
	}
}

// TestMoves: every change of an actual object counts, by whomever it was made, and nothing else.
func TestMoves(t *testing.T) {
	r, kernel := node(2)
	last := r.Tables.Moves()
	moved := func(want bool, what string) {
		t.Helper()
		now := r.Tables.Moves()
		if got := now != last; got != want {
			t.Errorf("%s: moved %t, want %t", what, got, want)
		}
		last = now
	}
	moved(false, "nothing")
	r.Pass(start)
	moved(false, "an idle pass")
	key, have := RouteKey{}, Route{}
	for k, c := range r.Tables.Routes.All {
		key, have = k, c.Have
	}
	r.Tables.Routes.Observe(key, have)
	moved(false, "what is known is observed")
	r.Tables.Replace(Owner{Name: "another"}, State{}, State{FastPeers: []Item[netip.Prefix, FastPeer]{{Key: key.Prefix}}})
	moved(false, "another object is desired")
	r.Tables.FastPeers.ApplyEach(func(netip.Prefix, Change[FastPeer]) error { return nil })
	r.Pass(start)
	moved(true, "it is set")
	delete(kernel.routes, key)
	r.Tables.Routes.ObserveGone(key)
	moved(true, "another process removes one")
	r.Pass(start)
	moved(true, "it is repaired")
}

// TestFDBGone: the entries of one device are gone, and to make them again is no repair.
func TestFDBGone(t *testing.T) {
	r, kernel := node(2)
	clear(kernel.fdb)
	r.Tables.FDBGone("vx42")
	if n := r.Tables.Pending(); n != 0 {
		t.Errorf("%d pending after another device lost its entries", n)
	}
	r.Tables.FDBGone(device)
	if got := r.Pass(start); got.Set != 2 || got.Repaired != 0 {
		t.Errorf("%+v", got)
	}
}

// TestCarriesRoutes counts the routes that are there, by device, whoever wants them.
func TestCarriesRoutes(t *testing.T) {
	tables := NewTables()
	key := RouteKey{Prefix: prefix("10.7.0.0/24")}
	check := func(what string, want ...string) {
		t.Helper()
		for _, link := range []string{"eth0", "eth1", ""} {
			if got := tables.CarriesRoutes(link); got != slices.Contains(want, link) {
				t.Errorf("%s: %q carries routes: %t", what, link, got)
			}
		}
	}
	tables.Routes.Want(self, key, Route{Link: "eth0", Protocol: RouteProtocol})
	check("wanted")
	tables.Routes.Observe(key, Route{Link: "eth0", Protocol: RouteProtocol})
	tables.Routes.Observe(RouteKey{Prefix: prefix("10.8.0.0/24")}, Route{Type: 6})
	check("there", "eth0")
	tables.Routes.Observe(key, Route{Link: "eth1", Protocol: RouteProtocol})
	check("moved", "eth1")
	tables.LinkGone("eth1")
	check("gone")
}
