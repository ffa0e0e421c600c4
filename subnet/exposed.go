package subnet

import (
	"fmt"
	"net/netip"
)

// The nodes' own addresses may lie inside the overlay's Network, beside the range from which subnets are leased: with
// Network 172.16.0.0/12 and SubnetMin 172.18.0.0, for instance. A route to a subnet that contains such an address would
// lead packets for that node into the overlay. So of two leases, one of whose subnets contains the public IP of the
// other, only the older one holds its subnets, as with two subnets that overlap.

// Leasable reports whether a is inside a subnet that a node may be given.
func (r Range) Leasable(a netip.Addr) bool {
	return r.Enabled() && !r.allocated() && a.IsValid() && a.Is4() == r.Min.Is4() && r.Fits(subnetAt(a, r.SubnetLen))
}

// Span returns the fewest prefixes that together hold every subnet that a node may be given, and no other address. If
// the store gives the nodes their subnets, that is Network.
func (r Range) Span() (all []netip.Prefix) {
	switch {
	case !r.Enabled():
		return nil
	case r.allocated():
		return []netip.Prefix{r.Network}
	}
	end := LastAddr(netip.PrefixFrom(r.Max, r.SubnetLen))
	for a := r.Min; a.IsValid() && a.Compare(end) <= 0; {
		bits := r.Network.Bits()
		fits := func(p netip.Prefix) bool { return p == p.Masked() && LastAddr(p).Compare(end) <= 0 }
		for !fits(netip.PrefixFrom(a, bits)) {
			bits++ // at SubnetLen it fits
		}
		all = append(all, netip.PrefixFrom(a, bits))
		a = LastAddr(all[len(all)-1]).Next()
	}
	return all
}

// inside reports whether a can only be an address of the overlay.
func (r Range) inside(a netip.Addr) bool {
	return r.Leasable(a) || r.Enabled() && a == r.Network.Addr()
}

// expose notes which public IPs of e are inside the overlay's Network, and has what depends on that judged again. l is
// what counts of e's lease, nil: nothing.
func (v *View) expose(e *entry, l *Lease) {
	var now [2]netip.Addr // by Family
	for _, f := range Families() {
		if l == nil || v.bad[e] != nil || !l.Has(f) {
			continue
		}
		if a := l.Endpoints[f].PublicIP; a.IsValid() && v.rules.Config.Ranges[f].Network.Contains(a) {
			now[f] = a
		}
	}
	before := v.exposed[e]
	if now == before {
		return
	}
	for _, f := range Families() {
		if before[f] == now[f] {
			continue
		}
		if p := hostPrefix(before[f]); p.IsValid() {
			v.byExposed[f].Modify(p, func(at []*entry, _ bool) ([]*entry, bool) {
				at = without(at, e)
				return at, len(at) == 0
			})
			v.markHolders(e, f, p)
		}
		if p := hostPrefix(now[f]); p.IsValid() {
			v.byExposed[f].Modify(p, func(at []*entry, _ bool) ([]*entry, bool) { return append(at, e), false })
			v.markHolders(e, f, p)
		}
	}
	if v.exposed[e] = now; now == ([2]netip.Addr{}) {
		delete(v.exposed, e)
	}
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// markHolders has the entries whose subnet contains an address of e judged again.
func (v *View) markHolders(e *entry, f Family, address netip.Prefix) {
	for _, at := range v.bySubnet[f].Supernets(address) {
		for _, x := range at {
			if x != e {
				v.mark(x)
			}
		}
	}
}

// markExposed has everything judged again that depends on whether e holds its subnets, because of public IPs inside of
// them.
func (v *View) markExposed(e *entry) {
	if len(v.exposed) == 0 {
		return
	}
	addresses := v.exposed[e]
	for _, f := range Families() {
		if p := hostPrefix(addresses[f]); p.IsValid() {
			v.markHolders(e, f, p)
		}
		if !e.Has(f) {
			continue
		}
		for _, at := range v.byExposed[f].Subnets(e.Endpoints[f].Subnet) {
			for _, x := range at {
				if x != e {
					v.mark(x)
				}
			}
		}
	}
}

// exposedTo returns why e does not hold its subnets because of an older lease and a public IP inside a subnet, or nil.
func (v *View) exposedTo(e *entry, l *Lease) error {
	if len(v.exposed) == 0 {
		return nil
	}
	for _, f := range Families() {
		if !l.Has(f) {
			continue
		}
		for _, at := range v.byExposed[f].Subnets(l.Endpoints[f].Subnet) {
			for _, x := range at {
				if x != e && x.holds && e.newer(x) {
					return fmt.Errorf("subnet %s contains the public IP of the older lease %s",
						l.Endpoints[f].Subnet, x.Name)
				}
			}
		}
		p := hostPrefix(v.exposed[e][f])
		if !p.IsValid() {
			continue
		}
		for _, at := range v.bySubnet[f].Supernets(p) {
			for _, x := range at {
				if x != e && x.holds && e.newer(x) {
					return fmt.Errorf("public IP %s is inside the subnet of the older lease %s", p.Addr(), x.Name)
				}
			}
		}
	}
	return nil
}
