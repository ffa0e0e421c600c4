package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// picture is what was found, and what is wrong with it.
type picture struct {
	subnets map[string]subnets // leased, by node
	wrong   []string
}

func (p *picture) bad(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// converge looks until all is right: each node has one lease and its subnet file says so, nobody has a part of another's, and
// each node has routes to all others, also to one that does not exist and whose lease is new. Subnets that are given have to
// be the same as then. It returns how long that took since a time, or what was still wrong at the deadline.
func (s *Suite) converge(ctx context.Context, before map[string]subnets, since time.Time) (took time.Duration, wrong []string) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	m := s.newMarker()
	defer func() {
		if err := s.store.delete(context.WithoutCancel(ctx), "subnets/"+m.Key()); err != nil {
			wrong = append(wrong, err.Error())
		}
	}()
	for {
		p := s.look(ctx, before, m)
		if wrong == nil || ctx.Err() == nil { // a look that the deadline interrupted says nothing of its own
			took, wrong = time.Since(since), p.wrong
		}
		if wrong == nil || !pause(ctx, 10*time.Millisecond) {
			return took, wrong
		}
	}
}

// look looks once. It writes the marker if it is not there.
func (s *Suite) look(ctx context.Context, before map[string]subnets, marker subnet.Lease) (p picture) {
	leases, err := s.store.leases(ctx)
	if err != nil {
		p.bad("%v", err)
		return p
	}
	p.subnets = map[string]subnets{}
	for _, h := range s.hosts {
		p.node(h, leases[h.Name()], before)
	}
	if len(leases[marker.NodeName]) == 0 {
		p.bad("%s was not there", marker.NodeName)
		if err := s.write(ctx, marker); err != nil {
			p.bad("%v", err)
		}
		return p
	}
	p.subnets[marker.NodeName] = subnetsOf(marker)
	for _, h := range s.hosts {
		p.routes(h)
	}
	return p
}

// node judges a node's lease and its subnet file.
func (p *picture) node(h *host, leases []subnet.Lease, before map[string]subnets) {
	if len(leases) != 1 {
		p.bad("%s has %d leases", h.Name(), len(leases))
		return
	}
	own := subnetsOf(leases[0])
	for name, other := range p.subnets {
		if own.overlap(other) {
			p.bad("%s and %s both have %s", name, h.Name(), own)
		}
	}
	p.subnets[h.Name()] = own
	if was, ok := before[h.Name()]; ok && was != own {
		p.bad("%s has %s, and had %s", h.Name(), own, was)
	}
	for _, f := range h.suite.options.Families {
		if !own[f].IsValid() {
			p.bad("%s has no %s subnet", h.Name(), f)
		}
	}
	file, err := h.subnetFile()
	if err != nil || subnets(file.Subnets).masked() != own {
		p.bad("%s has %s, its subnet file says %s, %v", h.Name(), own, subnets(file.Subnets), err)
	}
}

// routes judges a node's routes to the others.
func (p *picture) routes(h *host) {
	have := map[netip.Prefix]bool{}
	err := h.Do(func() error {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		for _, r := range routes {
			if r.Dst != nil {
				a, _ := netip.AddrFromSlice(r.Dst.IP)
				bits, _ := r.Dst.Mask.Size()
				have[netip.PrefixFrom(a.Unmap(), bits)] = true
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		p.bad("%s: read the routes: %v", h.Name(), err)
	}
	for name, to := range p.subnets {
		for _, one := range to {
			if name != h.Name() && one.IsValid() && !have[one] {
				p.bad("%s has no route to %s of %s", h.Name(), one, name)
			}
		}
	}
}

// subnets returns who has what now.
func (s *Suite) subnets(ctx context.Context) (now map[string]subnets, err error) {
	err = insist(ctx, "read the leases", func(ctx context.Context) error {
		leases, err := s.store.leases(ctx)
		now = map[string]subnets{}
		for _, h := range s.hosts {
			for _, l := range leases[h.Name()] {
				now[h.Name()] = subnetsOf(l)
			}
		}
		return err
	})
	return now, err
}

// newMarker is the lease of another node that does not exist. Each is another, since peers stay for a while after their
// lease is gone.
func (s *Suite) newMarker() subnet.Lease {
	n := s.markers % 50
	s.markers++
	return strange(fmt.Sprintf("marker%d", s.markers), number(s.options.Families, wide().max+1+byte(n)), byte(n))
}

// strange is the lease of a node that does not exist; n makes it unlike others.
func strange(name string, s subnets, n byte) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", NodeName: name, InstanceID: fmt.Sprintf("%032x", n)}
	for i, p := range s {
		if f := subnet.Family(i); p.IsValid() {
			l.Endpoints[f] = subnet.Endpoint{
				Subnet:   p,
				PublicIP: netip.MustParseAddr(fmt.Sprintf([...]string{"172.31.0.%d", "fd00:31::%d"}[f], 180+int(n))),
				Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:ab:00:00:%02x:%02x"}`, i, n),
			}
		}
	}
	return l
}

// write puts a lease without an etcd lease: as a reservation, which does not expire.
func (s *Suite) write(ctx context.Context, l subnet.Lease) error {
	value, err := l.Value()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), time.Second)
	defer cancel()
	if _, err = s.store.admin.Put(ctx, subnetKeys+l.Key(), string(value)); err != nil {
		return fmt.Errorf("write the lease of %s: %w", l.NodeName, err)
	}
	return nil
}
