package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// simulated is a node with all that concerns etcd and nothing else: the store and the view are the daemon's own, its kernel
// is left out. What network/node does with a lease beyond that (which subnet to ask for again, giving way to an older one)
// is not needed among nodes that all start from nothing.
type simulated struct {
	store *etcd.Store
	id    string
	ips   [2]netip.Addr

	mu       sync.Mutex // of what follows, for others to look
	final    bool       // it has a lease, and has seen it in its watch
	peers    int        // that it lets in
	revision int64      // that it has seen everything of
}

func newSimulated(i int, endpoint string) (*simulated, error) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	store, err := etcd.New(etcd.Options{Endpoints: []string{endpoint}, LeaseTTL: clusterTTL, Log: log,
		// All nodes are on this one machine: that they are slow is no fault of etcd's.
		DialTimeout: time.Minute, RequestTimeout: time.Minute})
	if err != nil {
		return nil, err
	}
	ip := netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)}) // RFC 2544
	return &simulated{store: store, id: fmt.Sprintf("%032x", i), ips: [2]netip.Addr{subnet.IPv4: ip}}, nil
}

// run is the node's life.
func (n *simulated) run(ctx context.Context) error {
	c, err := subnet.ParseConfig([]byte(config(ipv4())))
	if err != nil {
		return err
	}
	view := subnet.NewView()
	view.SetRules(subnet.Rules{Config: c, InstanceID: n.id, PublicIPs: n.ips})
	events := make(chan subnet.Event)
	watch := make(chan error, 1)
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() {
		watch <- n.store.Watch(ctx, func(e subnet.Event) error {
			select {
			case events <- e:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	})
	type result struct {
		asked  subnet.Allocation
		record subnet.Record
		err    error
	}
	var (
		claims = make(chan result)
		lost   = make(chan error)
		busy   bool
		own    *subnet.Record
		avoid  []netip.Prefix
		peers  int
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watch:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the watch ended: %w", err)
		case e := <-events:
			for _, c := range view.Apply(e) {
				peers += there(c.After) - there(c.Before)
			}
		case r := <-claims:
			busy = false
			switch {
			case r.err == nil:
				own, avoid = &r.record, nil
				background.Go(func() { // until ctx ends, or the lease is lost
					err := n.store.Hold(ctx, r.record, nil)
					select {
					case lost <- err:
					case <-ctx.Done():
					}
				})
			case errors.Is(r.err, subnet.ErrTaken):
				for _, p := range r.asked.Subnets {
					if p.IsValid() {
						avoid = append(avoid, p)
					}
				}
			case ctx.Err() == nil:
				return r.err
			}
		case <-lost:
			own = nil
		}
		if own == nil && !busy && view.Synced() {
			a, err := view.Allocate(subnet.Request{InstanceID: n.id, PublicIPs: n.ips, Avoid: avoid, Rand: rand.Uint64N})
			if err != nil {
				return err
			}
			busy = true
			background.Go(func() {
				l := subnet.Lease{BackendType: "vxlan", InstanceID: n.id, NodeName: "node" + n.id[24:]}
				l.Endpoints[subnet.IPv4] = subnet.Endpoint{Subnet: a.Subnets[subnet.IPv4], PublicIP: n.ips[subnet.IPv4],
					Data: fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:00:%s:%s:%s:%s"}`, n.id[24:26], n.id[26:28], n.id[28:30], n.id[30:32])}
				record, err := n.store.Claim(ctx, a.Have, l)
				select {
				case claims <- result{a, record, err}:
				case <-ctx.Done():
				}
			})
		}
		n.show(view, own, peers)
	}
}

func there(l *subnet.Lease) int {
	if l == nil {
		return 0
	}
	return 1
}

// show lets others see where the node is.
func (n *simulated) show(view *subnet.View, own *subnet.Record, peers int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers = peers
	n.revision = view.Revision()
	n.final = false
	if own != nil && n.revision >= own.Version {
		_, n.final, _ = view.Get(own.Name)
	}
}
