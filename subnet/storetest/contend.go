package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// backlog is how many events of the store can wait for a contender. As many nodes claim, each event is one that saves
// it a claim in vain.
const backlog = 1024

// again is after how long a contender that got no subnet tries again if nothing happens.
const again = 100 * time.Millisecond

// contender is a node with all that concerns its lease and nothing else: it watches, chooses, claims, holds, and begins
// again when it loses.
type contender struct {
	id       string
	ip       netip.Addr
	previous netip.Prefix // what it had before, as in a subnet file
	config   subnet.Config

	mu    sync.Mutex
	final string // the key that it is sure to have; empty: none
	err   error  // why it has none, as it said last
}

// has returns the contender's final key.
func (n *contender) has() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.final
}

// trouble returns what it said last.
func (n *contender) trouble() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *contender) now(key string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.final, n.err = key, err
}

func (n *contender) lease(p netip.Prefix) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", InstanceID: n.id}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{
		Subnet: p, PublicIP: n.ip, Data: `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`,
	}
	return l
}

// run runs it until ctx ends, or the store fails it.
func (n *contender) run(ctx context.Context, s subnet.Store) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ips := [2]netip.Addr{subnet.IPv4: n.ip}
	view := subnet.NewView()
	view.SetRules(subnet.Rules{Config: n.config, InstanceID: n.id, PublicIPs: ips})
	events, ended := make(chan subnet.Event, backlog), make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, func(e subnet.Event) error {
			select {
			case events <- e:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	var avoid []netip.Prefix
	for ctx.Err() == nil {
		for !view.Synced() {
			if !n.next(ctx, view, events) {
				return <-ended
			}
		}
		for len(events) > 0 { // what is known already is taken in before a choice, as a node does
			n.next(ctx, view, events)
		}
		a, err := view.Allocate(subnet.Request{
			InstanceID: n.id, PublicIPs: ips, Previous: [2]netip.Prefix{subnet.IPv4: n.previous},
			Avoid: avoid, Rand: rand.Uint64N,
		})
		var r subnet.Record
		if err == nil {
			r, err = s.Claim(ctx, a.Have, n.lease(a.Subnets[subnet.IPv4]))
		}
		switch {
		case err == nil:
			avoid = nil
			n.hold(ctx, s, view, r, events)
		case errors.Is(err, subnet.ErrTaken) && a.Have == nil:
			avoid = append(avoid, a.Subnets[subnet.IPv4])
		default:
			avoid = nil
			n.now("", err)
			// An event may show what to do. There may be none: a subnet that was taken in this round is free again, or
			// the claim got no answer.
			soon, cancel := context.WithTimeout(ctx, again)
			n.next(soon, view, events)
			cancel()
		}
	}
	cancel()
	return <-ended
}

// next takes in one event.
func (n *contender) next(ctx context.Context, view *subnet.View, events <-chan subnet.Event) bool {
	select {
	case e := <-events:
		view.Apply(e)
		return true
	case <-ctx.Done():
		return false
	}
}

// hold keeps a claimed record until it is lost, or has to give way to an older one.
func (n *contender) hold(
	ctx context.Context, s subnet.Store, view *subnet.View, r subnet.Record, events <-chan subnet.Event) {
	holding, stop := context.WithCancel(ctx)
	lost := make(chan error, 1)
	go func() { lost <- s.Hold(holding, r, nil) }()
	defer func() {
		stop()
		n.now("", errors.New("the lease is lost"))
	}()
	for {
		if view.Revision() >= r.Version {
			m, ok, why := view.Get(r.Name)
			if !ok || m.InstanceID != n.id || why != nil {
				stop()
				<-lost
				return
			}
			n.now(r.Name, nil)
		}
		select {
		case e := <-events:
			view.Apply(e)
		case <-lost:
			return
		case <-ctx.Done():
			<-lost
			return
		}
	}
}

// contend runs contenders, a few on each store.
func contend(t *testing.T, c Cluster, nodes []*contender) {
	t.Helper()
	const perStore = 10
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	var s subnet.Store
	for i, n := range nodes {
		if i%perStore == 0 {
			s = c.OpenLasting(t)
		}
		store := s
		running.Go(func() {
			if err := n.run(ctx, store); err != nil {
				t.Errorf("%s: %v", n.id, err)
			}
		})
	}
}

// owners waits until all contenders have a lease at once, none of them another's, and returns whose is whose.
func owners(t *testing.T, w *Watcher, nodes []*contender) map[string]string {
	t.Helper()
	var owner map[string]string
	eventually(t, func() string {
		s := w.Now()
		owner = map[string]string{}
		for _, n := range nodes {
			key := n.has()
			if key == "" {
				return fmt.Sprintf("a lease for %s: %v; %s", n.id, n.trouble(), unheld(s.Leases, nodes))
			}
			if other, ok := owner[key]; ok {
				return fmt.Sprintf("%s has the lease %s of %s", n.id, key, other)
			}
			owner[key] = n.id
			if r := s.Leases[key]; r.Bad != nil || r.InstanceID != n.id {
				return fmt.Sprintf("the lease %s of %s: it is %+v", key, n.id, r)
			}
		}
		if len(s.Leases) != len(nodes) {
			return fmt.Sprintf("%d leases; there are %d", len(nodes), len(s.Leases))
		}
		return ""
	})
	return owner
}

// unheld counts the leases, and names those whose nodes do not hold them, because they hold another one or none.
func unheld(leases map[string]subnet.Record, nodes []*contender) string {
	holds := map[string]string{}
	for _, n := range nodes {
		holds[n.id] = n.has()
	}
	text := fmt.Sprintf("there are %d leases", len(leases))
	for name, r := range leases {
		if holds[r.InstanceID] != name {
			text += fmt.Sprintf("; %s of %q, which holds %q", name, r.InstanceID, holds[r.InstanceID])
		}
	}
	return text
}

// eventually waits for what no event of the store shows: it polls until check returns "".
func eventually(t *testing.T, check func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for missing := check(); missing != ""; missing = check() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, missing)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rangeOf is a network config with as many subnets as asked for.
func rangeOf(t *testing.T, subnets int) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig(fmt.Appendf(nil,
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.%d.0","Backend":{"Type":"vxlan"}}`, subnets))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func contenders(config subnet.Config, n int) (nodes []*contender) {
	for i := range n {
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		nodes = append(nodes, &contender{id: fmt.Sprintf("node%d", i), ip: ip, config: config})
	}
	return nodes
}

func contendCases() []testCase {
	return []testCase{
		{"200 nodes and the last 200 subnets: each gets one", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			nodes := contenders(rangeOf(t, 200), 200)
			contend(t, c, nodes)
			owners(t, w, nodes)
		}},
		{"two nodes that remember the same subnet: one gets it, the other another", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			nodes := contenders(rangeOf(t, 200), 2)
			for _, n := range nodes {
				n.previous = netip.MustParsePrefix("10.5.77.0/24")
			}
			contend(t, c, nodes)
			if owner := owners(t, w, nodes); owner["10.5.77.0-24"] == "" {
				t.Errorf("the leases are %v", owner)
			}
		}},
		{"one node too many: it says so and takes the first that is free", func(t *testing.T, c Cluster) {
			w := Watch(t, c.Open(t), nil)
			c.Write(t, "subnets/10.5.4.0-24", `{"PublicIP":"203.0.113.1","BackendType":"vxlan"}`) // a reservation
			nodes := contenders(rangeOf(t, 4), 4)
			contend(t, c, nodes)
			eventually(t, func() string {
				left := 0
				for _, n := range nodes {
					if n.has() == "" && errors.Is(n.trouble(), subnet.ErrFull) {
						left++
					}
				}
				if left != 1 {
					return fmt.Sprintf("one node without a lease; there are %d", left)
				}
				return ""
			})
			c.Delete(t, "subnets/10.5.4.0-24")
			owners(t, w, nodes)
		}},
	}
}
