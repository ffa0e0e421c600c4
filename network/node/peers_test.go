package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// peersOn is a peerSet on a real view and real tables, with the IPv4 network 10.5.0.0/16 and host-gw.
type peersOn struct {
	*peerSet
	all    *subnet.View
	tables *network.Tables
	now    time.Time
	rev    int64
}

func hostGW(t *testing.T, link string) (subnet.Config, backend.Backend) {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`))
	if err != nil {
		t.Fatal(err)
	}
	u := desiredUnderlay(c)
	u.Link = link
	b, err := newBackend(c, u)
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

func newPeersOn(t *testing.T) *peersOn {
	p := &peersOn{all: subnet.NewView(), tables: network.NewTables(), now: time.Unix(1e9, 0)}
	p.peerSet = newPeerSet(p.all, p.tables)
	c, b := hostGW(t, "eth0")
	p.all.SetRules(subnet.Rules{Config: c, InstanceID: ownID, PublicIPs: [2]netip.Addr{subnet.IPv4: ownIP}})
	p.event(subnet.Synced, nil, nil, 0)
	p.use(b)
	return p
}

// event brings leases and deleted keys in, and returns the numbers of peers added, removed and changed.
func (p *peersOn) event(kind subnet.EventType, put []subnet.Lease, deleted []string, grace time.Duration) [3]int {
	p.rev++
	e := subnet.Event{Type: kind, Revision: p.rev, Deleted: deleted}
	for _, l := range put {
		l.BackendType = "host-gw"
		r := recordOf(l)
		r.Order, r.Version = p.rev, p.rev
		e.Put = append(e.Put, r)
	}
	added, removed, changed := p.apply(p.all.Apply(e), grace, p.now)
	return [3]int{added, removed, changed}
}

// routes are those that are wanted, as "prefix via gateway dev link".
func (p *peersOn) routes() (all []string) {
	for k, c := range p.tables.Routes.All {
		if c.Wanted {
			all = append(all, k.String()+" via "+c.Want.Gateway.String()+" dev "+c.Want.Link)
		}
	}
	slices.Sort(all)
	return all
}

func (p *peersOn) want(t *testing.T, what string, routes ...string) {
	t.Helper()
	if got := p.routes(); !slices.Equal(got, routes) {
		t.Errorf("%s: routes %q, want %q", what, got, routes)
	}
}

const (
	route7 = "10.5.7.0/24 via 192.0.2.7 dev eth0"
	route8 = "10.5.8.0/24 via 192.0.2.8 dev eth0"
	route9 = "10.5.7.0/24 via 192.0.2.9 dev eth0"
)

func TestPeersInTables(t *testing.T) {
	p := newPeersOn(t)
	seven, eight := leaseOf(otherID, "10.5.7.0/24", 7), leaseOf("00000000000000000000000000000008", "10.5.8.0/24", 8)
	if got := p.event(subnet.Changed, []subnet.Lease{seven, eight}, nil, 0); got != [3]int{2, 0, 0} {
		t.Errorf("added, removed, changed: %v", got)
	}
	p.want(t, "two leases", route7, route8)
	moved := seven
	moved.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("192.0.2.9")
	if got := p.event(subnet.Changed, []subnet.Lease{moved}, nil, 0); got != [3]int{0, 0, 1} {
		t.Errorf("added, removed, changed: %v", got)
	}
	p.want(t, "another public IP", route9, route8)
	if got := p.event(subnet.Changed, nil, []string{seven.Key()}, 0); got != [3]int{0, 1, 0} {
		t.Errorf("added, removed, changed: %v", got)
	}
	p.want(t, "one withdrawn, without a grace period", route8)
}

// TestPeersGrace: a withdrawn peer stays for its grace period, or until its lease is back or its subnet is ours.
func TestPeersGrace(t *testing.T) {
	seven := leaseOf(otherID, "10.5.7.0/24", 7)
	withdrawn := func() *peersOn {
		p := newPeersOn(t)
		p.event(subnet.Changed, []subnet.Lease{seven}, nil, 0)
		p.event(subnet.Changed, nil, []string{seven.Key()}, time.Minute)
		p.want(t, "in its grace period", route7)
		return p
	}
	p := withdrawn()
	a := alarm{now: p.now.Add(time.Minute - 1)}
	if p.expire(&a); !a.at.Equal(p.now.Add(time.Minute)) {
		t.Errorf("the alarm is at %v, want the end of the grace period", a.at)
	}
	p.want(t, "just before the end", route7)
	p.expire(&alarm{now: p.now.Add(time.Minute)})
	p.want(t, "at the end")

	p = withdrawn()
	p.event(subnet.Changed, []subnet.Lease{seven}, nil, time.Minute)
	p.expire(&alarm{now: p.now.Add(time.Hour)})
	p.want(t, "back", route7)

	p = withdrawn()
	p.own[subnet.IPv4] = netip.MustParsePrefix("10.5.7.0/24")
	p.expire(&alarm{now: p.now})
	p.want(t, "its subnet is ours")

	p = withdrawn()
	other := leaseOf("00000000000000000000000000000009", "10.5.7.0/24", 9)
	p.event(subnet.Changed, []subnet.Lease{other}, nil, time.Minute)
	p.want(t, "claimed by another node", route9)
	p.expire(&alarm{now: p.now.Add(time.Hour)})
	p.want(t, "and the grace period over", route9)
}

// TestPeersRetained: peers of an earlier run are retained unless their lease is there, or is ours.
func TestPeersRetained(t *testing.T) {
	p := newPeersOn(t)
	p.own[subnet.IPv4] = netip.MustParsePrefix("10.5.9.0/24")
	eight := leaseOf("00000000000000000000000000000008", "10.5.8.0/24", 8)
	p.event(subnet.Changed, []subnet.Lease{eight}, nil, 0)
	for _, l := range []subnet.Lease{leaseOf(otherID, "10.5.7.0/24", 7), eight, leaseOf(ownID, "10.5.9.0/24", 1)} {
		p.retain(subnet.Record{Lease: l, Name: l.Key(), Order: 1}, p.now.Add(time.Minute))
	}
	p.want(t, "one retained", route7, route8)
	if len(p.retained) != 1 {
		t.Errorf("retained %v", p.retained)
	}
	p.expire(&alarm{now: p.now.Add(time.Minute)})
	p.want(t, "after the grace period", route8)
}

// TestPeersOtherBackend: peers and retained ones follow to another backend, and none is in the tables before there is
// one.
func TestPeersOtherBackend(t *testing.T) {
	p := newPeersOn(t)
	seven, eight := leaseOf(otherID, "10.5.7.0/24", 7), leaseOf("00000000000000000000000000000008", "10.5.8.0/24", 8)
	p.event(subnet.Changed, []subnet.Lease{seven, eight}, nil, 0)
	p.event(subnet.Changed, nil, []string{seven.Key()}, time.Minute)
	_, b := hostGW(t, "eth1")
	p.use(b)
	p.want(t, "another uplink", "10.5.7.0/24 via 192.0.2.7 dev eth1", "10.5.8.0/24 via 192.0.2.8 dev eth1")

	q := newPeerSet(p.all, network.NewTables())
	if a, r, c := q.apply([]subnet.Change{{Name: seven.Key(), After: &seven}}, 0, p.now); a+r+c != 0 {
		t.Error("peers counted before there is a backend")
	}
}
