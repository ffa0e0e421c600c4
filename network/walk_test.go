package network

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// walk is a random walk: leases come, change and go, and everything that can go wrong in a kernel does.
type walk struct {
	r      *rand.Rand
	rec    *Reconciler
	kernel *fakeKernel
	now    time.Time
	device string // what the node calls its device at the moment
	owners map[string]asking
	steps  []string
}

// asking is what one owner asks for.
type asking struct {
	owner Owner
	state State
}

var errInjected = errors.New("injected")

// bystanders are objects of somebody else's that nothing in the walk is to do anything to.
func bystanders(f *fakeKernel) {
	f.links["eth0"] = Link{Kind: "veth", MTU: 1500, Up: true}
	f.links["docker0"] = Link{Kind: "bridge", MTU: 1500, Up: true}
	f.links["vx99"] = Link{Kind: KindVXLAN, Settings: VXLAN{VNI: 99, Port: 8472}, Up: true}
	f.addresses[AddressKey{"eth0", prefix("192.0.2.1/24")}] = Address{}
	f.addresses[AddressKey{"docker0", prefix("172.17.0.1/16")}] = Address{}
	f.addresses[AddressKey{"vx99", prefix("10.99.0.1/32")}] = Address{}
	f.fdb[FDBKey{"vx99", MAC{2, 1}}] = FDB{Remote: netip.MustParseAddr("192.0.2.9"), Permanent: true}
	f.neighbours[NeighbourKey{"vx99", netip.MustParseAddr("10.99.0.2")}] = Neighbour{MAC: MAC{2, 1}, Permanent: true}
	f.neighbours[NeighbourKey{"eth0", netip.MustParseAddr("192.0.2.254")}] = Neighbour{MAC: MAC{2, 7}, Permanent: true}
	gateway := netip.MustParseAddr("192.0.2.254")
	f.routes[RouteKey{Prefix: prefix("0.0.0.0/0")}] = Route{Link: "eth0", Gateway: gateway, Protocol: 3, Type: 1}
	f.routes[RouteKey{Prefix: prefix("192.0.2.0/24")}] = Route{Link: "eth0", Protocol: protocolKernel, Type: 1}
	f.routes[RouteKey{Prefix: prefix("10.5.29.0/24"), Metric: 50}] = Route{Link: "eth0", Protocol: 4, Type: 1}
	f.routes[RouteKey{Prefix: prefix("10.5.0.0/16")}] = Route{Protocol: 4, Type: 6}
	f.routes[RouteKey{Prefix: prefix("10.99.0.0/24")}] = Route{Link: "vx99", Protocol: 3, Type: 1}
	f.nexthops[7] = Nexthop{Link: "eth0", Gateway: gateway, Protocol: 3}
	f.nexthops[8] = Nexthop{Protocol: 4, Odd: true}
	f.nexthops[NexthopIDOf(netip.MustParseAddr("10.5.99.0"))] = Nexthop{Link: "vx99", Gateway: gateway, Protocol: 4} // as ours are numbered
	f.routes[RouteKey{Prefix: prefix("10.98.0.0/24")}] = Route{Link: "eth0", Nexthop: 7, Protocol: 4, Type: 1}
	f.routes[RouteKey{Prefix: prefix("10.98.1.0/24")}] = Route{Nexthop: 8, Protocol: 4, Type: 1}
}

// replace lets an owner ask for something else.
func (w *walk) replace(o Owner, next State) {
	w.rec.Tables.Replace(o, w.owners[o.Name].state, next)
	if next.Links == nil && next.Routes == nil {
		delete(w.owners, o.Name)
	} else {
		w.owners[o.Name] = asking{o, next}
	}
}

// lease lets one of the peers have one of a few subnets, MACs and addresses, so that leases often collide; or none.
func (w *walk) lease() string {
	o := Owner{Name: fmt.Sprint("peer", w.r.IntN(6)), Grace: w.r.IntN(4) == 0, Age: int64(w.r.IntN(5))}
	if w.r.IntN(4) == 0 {
		w.replace(o, State{})
		return o.Name + " goes"
	}
	subnet, remote := w.subnet(), w.remote()
	s := peerState(w.device, subnet, MAC{2, byte(w.r.IntN(6))}, remote)
	if w.r.IntN(4) == 0 { // as with direct routing
		direct := Route{Link: "eth0", Gateway: remote, Protocol: RouteProtocol, Type: 1}
		s = State{Routes: []Item[RouteKey, Route]{{RouteKey{Prefix: subnet}, direct}}}
	}
	if w.r.IntN(3) != 0 {
		s = byID(s)
	}
	s.VTEPs = []Item[netip.Addr, VTEP]{{Key: remote}}
	w.replace(o, s)
	return fmt.Sprintf("%+v wants %+v", o, s.Routes)
}

func (w *walk) subnet() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(20 + w.r.IntN(6)), 0}), 24)
}

func (w *walk) remote() netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + w.r.IntN(6))})
}

// self changes what the node wants for itself. What the peers want follows the device's name.
func (w *walk) self() string {
	l := withVNI(vxlan(), 1+uint32(w.r.IntN(2)))
	l.MTU = 1400 + 50*w.r.IntN(2)
	l.MAC[5] = byte(w.r.IntN(2))
	if w.r.IntN(4) != 0 {
		l = withVNI(l, 1)
	}
	old := w.device
	if w.r.IntN(4) == 0 {
		w.device = fmt.Sprint("flannel.", 1+w.r.IntN(2))
	}
	w.replace(self, nodeState(w.device, l))
	for _, name := range slices.Sorted(maps.Keys(w.owners)) {
		a := w.owners[name]
		next := a.state
		next.FDB, next.Neighbours = slices.Clone(next.FDB), slices.Clone(next.Neighbours)
		next.Nexthops, next.Routes = slices.Clone(next.Nexthops), slices.Clone(next.Routes)
		for i := range next.FDB {
			next.FDB[i].Key.Link = w.device
		}
		for i := range next.Neighbours {
			next.Neighbours[i].Key.Link = w.device
		}
		for i := range next.Nexthops {
			if next.Nexthops[i].Value.Link == old {
				next.Nexthops[i].Value.Link = w.device
			}
		}
		for i := range next.Routes {
			if next.Routes[i].Value.Link == old {
				next.Routes[i].Value.Link = w.device
			}
		}
		w.replace(a.owner, next)
	}
	return fmt.Sprintf("the node wants %s %+v", w.device, l)
}

// pick returns one of m's keys at random.
func pick[K comparable, V any](r *rand.Rand, m map[K]V, text func(K) string, where func(K, V) bool) (K, bool) {
	var keys []K
	for k, v := range m {
		if where(k, v) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		var none K
		return none, false
	}
	slices.SortFunc(keys, func(a, b K) int { return strings.Compare(text(a), text(b)) }) // the same again for the same seed
	return keys[r.IntN(len(keys))], true
}

// entryFault deletes, changes or adds one entry.
func (w *walk) entryFault() string {
	f, t, r := w.kernel, w.rec.Tables, w.r
	_, there := f.links[w.device]
	onDevice := func(name string) bool { return name == w.device && isOurs(f.links[name]) }
	stale := MAC{2, 0x77, byte(r.IntN(3))}
	if r.IntN(8) == 0 {
		put(f, f.vteps, t.VTEPs, netip.AddrFrom4([4]byte{192, 0, 2, 66}), VTEP{})
		del(f, f.vteps, t.VTEPs, w.remote())
		return "VTEPs changed"
	}
	switch r.IntN(14) {
	case 0:
		if k, ok := pick(r, f.routes, RouteKey.String, func(_ RouteKey, v Route) bool { return v.Protocol == RouteProtocol }); ok {
			del(f, f.routes, t.Routes, k)
			return "route deleted: " + k.String()
		}
	case 1:
		if k, ok := pick(r, f.routes, RouteKey.String, func(_ RouteKey, v Route) bool { return v.Protocol == RouteProtocol }); ok {
			put(f, f.routes, t.Routes, k, Route{Type: 6, Protocol: 3}) // somebody's blackhole in a slot that is ours
			if !t.Routes.Get(k).Wanted {
				put(f, f.routes, t.Routes, k, Route{Type: 6, Protocol: RouteProtocol})
			}
			return "route replaced: " + k.String()
		}
	case 2:
		if k, ok := pick(r, f.fdb, FDBKey.String, func(k FDBKey, _ FDB) bool { return onDevice(k.Link) }); ok {
			del(f, f.fdb, t.FDB, k)
			return "FDB entry deleted: " + k.String()
		}
	case 3:
		if k, ok := pick(r, f.fdb, FDBKey.String, func(k FDBKey, _ FDB) bool { return onDevice(k.Link) }); ok {
			put(f, f.fdb, t.FDB, k, FDB{Remote: w.remote(), Permanent: r.IntN(2) == 0})
			return "FDB entry changed: " + k.String()
		}
	case 4:
		if k, ok := pick(r, f.neighbours, NeighbourKey.String, func(k NeighbourKey, _ Neighbour) bool { return onDevice(k.Link) }); ok {
			del(f, f.neighbours, t.Neighbours, k)
			return "neighbour deleted: " + k.String()
		}
	case 5:
		if k, ok := pick(r, f.neighbours, NeighbourKey.String, func(k NeighbourKey, _ Neighbour) bool { return onDevice(k.Link) }); ok {
			put(f, f.neighbours, t.Neighbours, k, Neighbour{MAC: MAC{2, 0x55}, Permanent: r.IntN(2) == 0})
			return "neighbour changed: " + k.String()
		}
	case 6:
		if k, ok := pick(r, f.addresses, AddressKey.String, func(k AddressKey, _ Address) bool { return onDevice(k.Link) }); ok {
			del(f, f.addresses, t.Addresses, k)
			return "address deleted: " + k.String()
		}
	case 7:
		put(f, f.routes, t.Routes, RouteKey{Prefix: w.subnet(), Metric: 3}, Route{Link: "eth0", Protocol: RouteProtocol, Type: 1})
		return "stale route added"
	case 8:
		if there {
			put(f, f.fdb, t.FDB, FDBKey{w.device, stale}, FDB{Remote: w.remote(), Permanent: r.IntN(2) == 0})
			put(f, f.neighbours, t.Neighbours, NeighbourKey{w.device, w.remote()}, Neighbour{MAC: stale, Permanent: r.IntN(2) == 0})
			return "stale FDB entry and neighbour added"
		}
	case 9:
		if k, ok := pick(r, f.nexthops, idString, func(_ NexthopID, v Nexthop) bool { return v.Protocol == RouteProtocol }); ok {
			f.delNexthop(k)
			return "nexthop deleted: " + idString(k)
		}
	case 10, 11:
		if k, ok := pick(r, f.nexthops, idString, func(_ NexthopID, v Nexthop) bool { return v.Protocol == RouteProtocol }); ok {
			v := f.nexthops[k]
			switch r.IntN(5) {
			case 0:
				v.Gateway = w.remote()
			case 1:
				v.Link = "eth0"
			case 2:
				v.Protocol = 4
			case 3:
				v = Nexthop{Protocol: RouteProtocol, Odd: true}
			default:
				v = Nexthop{Protocol: 4, Odd: true}
			}
			f.putNexthop(k, v)
			return fmt.Sprintf("nexthop changed: %v is %+v", k, v)
		}
	case 12:
		v := Nexthop{Link: "eth0", Gateway: w.remote(), Protocol: RouteProtocol}
		if f.links[w.device].Up && r.IntN(2) == 0 {
			v.Link = w.device
		}
		id := NexthopIDOf(w.subnet().Addr())
		f.putNexthop(id, v)
		put(f, f.routes, t.Routes, RouteKey{Prefix: w.subnet(), Metric: 4}, Route{Link: v.Link, Nexthop: id, Protocol: RouteProtocol, Type: 1})
		return "stale nexthop and route added: " + idString(id)
	default:
		if there {
			put(f, f.addresses, t.Addresses, AddressKey{w.device, prefix("10.66.0.1/24")}, Address{})
			put(f, f.addresses, t.Addresses, AddressKey{w.device, prefix("fe80::1/64")}, Address{})
			return "addresses added"
		}
	}
	return "nothing"
}

// deviceFault does something to the whole device, or to everything.
func (w *walk) deviceFault() string {
	f, t, r := w.kernel, w.rec.Tables, w.r
	l, there := f.links[w.device]
	there = there && isOurs(l)
	switch r.IntN(9) {
	case 0:
		f.delLink(w.device)
		return "device deleted"
	case 1:
		if there {
			l.Up = false
			f.putLink(w.device, l)
			return "device down"
		}
	case 2:
		if there {
			down := l
			down.Up = false
			f.putLink(w.device, down)
			f.putLink(w.device, l)
			return "device down and up"
		}
	case 3:
		if there {
			v := vxlanOf(l)
			v.Learning = true
			l.MTU, l.MAC, l.Settings = 1280, MAC{2, 0xee}, v
			f.putLink(w.device, l)
			return "device changed"
		}
	case 4:
		if there {
			l.Alias = ""
			f.putLink(w.device, l)
			return "mark taken off"
		}
	case 5:
		f.delLink(w.device)
		f.putLink(w.device, Link{Kind: "dummy", MTU: 1500, Up: true})
		put(f, f.addresses, t.Addresses, AddressKey{w.device, prefix("10.66.0.2/24")}, Address{})
		put(f, f.routes, t.Routes, RouteKey{Prefix: prefix("10.66.0.0/24")}, Route{Link: w.device, Protocol: 3, Type: 1})
		return "name taken by somebody else"
	case 6:
		if _, taken := f.links["somehow"]; there && !taken {
			f.rename(w.device, "somehow")
			return "device renamed"
		}
	case 7:
		if l.Kind == "dummy" {
			f.delLink(w.device)
			return "name free again"
		}
	default:
		maps.DeleteFunc(f.routes, func(_ RouteKey, v Route) bool { return v.Protocol == RouteProtocol })
		maps.DeleteFunc(f.nexthops, func(_ NexthopID, v Nexthop) bool { return v.Protocol == RouteProtocol })
		maps.DeleteFunc(f.fdb, func(k FDBKey, _ FDB) bool { return k.Link == w.device })
		maps.DeleteFunc(f.neighbours, func(k NeighbourKey, _ Neighbour) bool { return k.Link == w.device })
		f.read()
		return "all flushed, and notifications lost"
	}
	return "nothing"
}

func (w *walk) step() {
	f, t, r := w.kernel, w.rec.Tables, w.r
	what := "nothing"
	switch r.IntN(16) {
	case 0, 1, 2, 3:
		what = w.lease()
	case 4:
		what = w.self()
	case 5, 6, 7, 8, 9:
		what = w.entryFault()
	case 10, 11:
		what = w.deviceFault()
	case 12:
		k := RouteKey{Prefix: w.subnet()}
		what = "a bridge comes and goes: " + k.String()
		if f.routes[k].Protocol == protocolKernel {
			del(f, f.routes, t.Routes, k)
		} else {
			put(f, f.routes, t.Routes, k, Route{Link: "docker0", Protocol: protocolKernel, Type: 1})
		}
	case 13:
		odds, salt := r.Uint32N(3), r.Uint32()
		what = fmt.Sprintf("the kernel refuses %d in 4", odds)
		f.refuse = func(kind, k string) error { // no matter in what order it is asked, so that a seed says it all
			h := fnv.New32a()
			fmt.Fprint(h, kind, k, salt, w.now)
			if h.Sum32()>>8%4 < odds {
				return errInjected
			}
			return nil
		}
	case 14:
		f.read()
		what = "full read"
	default:
		w.rec.KeepUnwanted = !w.rec.KeepUnwanted
		what = fmt.Sprint("KeepUnwanted ", w.rec.KeepUnwanted)
	}
	w.steps = append(w.steps, what)
	w.now = w.now.Add(time.Duration(r.IntN(20)) * time.Millisecond)
	if r.IntN(2) == 0 {
		f.notify()
		w.pass()
	}
}

func (w *walk) pass() {
	got := w.rec.Pass(w.now)
	w.steps = append(w.steps, fmt.Sprintf("  pass: %+v", got))
}

// settle takes out of the way what makes repair impossible, and passes until there is nothing to wait for.
func (w *walk) settle(t *testing.T) {
	f := w.kernel
	f.refuse, w.rec.KeepUnwanted = nil, false
	for _, name := range []string{"flannel.1", "flannel.2", "somehow"} {
		// One that was ours, but lost its mark and is not as it would be wanted now, nobody can know for ours.
		if l := f.links[name]; l.Alias != Alias && !l.SameDevice(w.rec.Tables.Links.Get(name).Want) {
			f.delLink(name)
		}
	}
	for k, v := range f.routes {
		if v.Link == "docker0" {
			del(f, f.routes, w.rec.Tables.Routes, k)
		}
	}
	f.notify()
	for range 100 {
		got := w.rec.Pass(w.now)
		f.notify()
		if got.Retry.IsZero() && got.Set+got.Removed == 0 {
			return
		}
		if got.Retry.After(w.now) {
			w.now = got.Retry
		}
	}
	t.Errorf("never settles; pending %v", w.rec.Tables.Counts())
}

// want works out what the kernel should hold: of all who ask for something, the best; and what is nobody's.
func (w *walk) want(initial *fakeKernel) *fakeKernel {
	asking := slices.SortedFunc(maps.Values(w.owners), func(a, b asking) int {
		if a.owner.before(b.owner) {
			return 1
		}
		return -1
	})
	f := initial.clone()
	for _, a := range asking { // the best last
		fill(f.vteps, a.state.VTEPs)
		fill(f.links, a.state.Links)
		fill(f.addresses, a.state.Addresses)
		fill(f.fdb, a.state.FDB)
		fill(f.neighbours, a.state.Neighbours)
		fill(f.nexthops, a.state.Nexthops)
		fill(f.routes, a.state.Routes)
	}
	// A blackhole that somebody put in the place of a route is theirs once nobody wants the route any more, and so is a
	// nexthop object that somebody made their own. What is not permanent on our device ages by itself, and link-local
	// addresses may be somebody's.
	for k, v := range w.kernel.routes {
		if _, wanted := f.routes[k]; v.Type == 6 && v.Protocol != RouteProtocol && !wanted {
			f.routes[k] = v
		}
	}
	for k, v := range w.kernel.nexthops {
		if _, wanted := f.nexthops[k]; v.Protocol != RouteProtocol && !wanted {
			f.nexthops[k] = v
		}
	}
	for k, v := range w.kernel.fdb {
		if _, wanted := f.fdb[k]; k.Link == w.device && !v.Permanent && !wanted {
			f.fdb[k] = v
		}
	}
	for k, v := range w.kernel.neighbours {
		if _, wanted := f.neighbours[k]; k.Link == w.device && !v.Permanent && !wanted {
			f.neighbours[k] = v
		}
	}
	for k := range w.kernel.addresses {
		if k.Link == w.device && k.Prefix.Addr().IsLinkLocalUnicast() {
			f.addresses[k] = Address{}
		}
	}
	return f
}

func fill[K comparable, V comparable](m map[K]V, items []Item[K, V]) {
	for _, x := range items {
		m[x.Key] = x.Value
	}
}

// TestWalk: whatever happened, in whatever order, when it is over the kernel holds what is wanted and what is somebody
// else's, nothing is pending, and there is nothing left to do.
func TestWalk(t *testing.T) {
	for seed := range uint64(200) {
		rec, kernel := newReconciler()
		bystanders(kernel)
		initial := kernel.clone()
		w := &walk{r: rand.New(rand.NewPCG(seed, 1)), rec: rec, kernel: kernel, now: start, device: device, owners: map[string]asking{}}
		kernel.read()
		w.replace(self, nodeState(device, vxlan()))
		for range 80 {
			w.step()
			if w.r.IntN(20) == 0 {
				w.settle(t)
			}
		}
		w.settle(t)

		if n := rec.Tables.Pending(); n != 0 {
			t.Errorf("%d pending", n)
		}
		if diff := diff(kernel.dump(), w.want(initial).dump()); diff != "" {
			t.Errorf("the kernel holds (+), or lacks (-):\n%s", diff)
		}
		if kernel.touched != nil {
			t.Errorf("touched of somebody else's: %v", kernel.touched)
		}
		kernel.calls = nil
		kernel.read()
		if got := rec.Pass(w.now); kernel.calls != nil || !got.Retry.IsZero() {
			t.Errorf("after a full read: %v, %+v", kernel.calls, got)
		}
		if t.Failed() {
			t.Fatalf("seed %d, after\n%s", seed, strings.Join(w.steps, "\n"))
		}
	}
}

// diff returns the lines that are only in one of got and want.
func diff(got, want []string) string {
	var b strings.Builder
	for _, s := range got {
		if !slices.Contains(want, s) {
			fmt.Fprintln(&b, "+", s)
		}
	}
	for _, s := range want {
		if !slices.Contains(got, s) {
			fmt.Fprintln(&b, "-", s)
		}
	}
	return b.String()
}
