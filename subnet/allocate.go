package subnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Request is what a node that needs a lease knows of itself.
type Request struct {
	InstanceID string
	PublicIPs  [2]netip.Addr   // by Family
	Previous   [2]netip.Prefix // by Family: the subnets in the subnet file of an earlier run; invalid if there are none
	// Avoid holds subnets that were found taken although the view does not show them yet.
	Avoid []netip.Prefix
	// Holder says what is known of the holder of a record that has one of PublicIPs and not InstanceID. It is not asked
	// about a reservation that no node has claimed yet. nil: all such holders are gone.
	Holder func(Record) Holder
	// Rand returns a number in [0, n), n > 0, at random.
	Rand func(n uint64) uint64
}

// Holder is what a node knows of the holder of another node's record.
type Holder uint8

// What a node can know of a holder.
const (
	// HolderUnknown means that it may be alive. The node finds out before it takes the record over, see [Challenger].
	HolderUnknown Holder = iota
	// HolderGone means that the record may be taken over.
	HolderGone
	// HolderAlive means that the record is left alone: the two nodes only share a public IP.
	HolderAlive
)

// Allocation is an answer to a [Request].
type Allocation struct {
	Have *Record // the node's own record, to be taken over; nil: a new one is to be created
	// Ask is a record that the node should have if its holder is gone, which is not known. The caller finds out and
	// allocates again. nil: the answer is complete; otherwise everything else is unset.
	Ask     *Record
	Subnets [2]netip.Prefix // by Family; valid for every family that the config enables
}

// Allocate chooses the subnets that a node should claim, in this order: those of its own lease (by instance id, else by
// public IP if the holder is gone; a reservation for its public IP that no node has claimed counts as its own), those
// it had before, free ones. Free ones are picked at random over the whole range, so that many nodes starting at once
// rarely choose alike, and with the same index in each family where possible, so that nodes which do not collide in the
// first do not in the second either. None of them contains anything of Rules.Underlay.
//
// It costs O(leases) whatever the size of the range. It fails with ErrFull when a range has nothing left.
func (v *View) Allocate(r Request) (Allocation, error) {
	if v.rules == nil {
		return Allocation{}, fmt.Errorf("allocate: the network config is not known yet")
	}
	if !v.synced {
		return Allocation{}, fmt.Errorf("allocate: the leases are not known yet")
	}
	var a Allocation
	ranges := v.rules.Config.Ranges
	own, ask := v.own(r)
	if own == nil && ask != nil {
		open := v.record(ask, ask.Lease)
		return Allocation{Ask: &open}, nil
	}
	if own != nil {
		have := v.record(own, own.Lease)
		a.Have = &have
	}
	for _, f := range Families() {
		if !ranges[f].Enabled() {
			continue
		}
		switch previous := r.Previous[f]; {
		case own != nil && v.mayKeep(own, f):
			a.Subnets[f] = own.Endpoints[f].Subnet
		case ranges[f].Fits(previous) && v.free(f, previous, own, r):
			a.Subnets[f] = previous
		default:
			p, err := v.pick(f, own, r, a.Subnets[IPv4])
			if err != nil {
				return Allocation{}, err
			}
			a.Subnets[f] = p
		}
	}
	return a, nil
}

// Own returns the node's own lease from before, as [View.Allocate] would take it over, or nil.
func (v *View) Own(r Request) *Lease {
	if v.rules == nil {
		return nil
	}
	own, _ := v.own(r)
	if own == nil {
		return nil
	}
	l := *own.Lease
	return &l
}

// ByInstance returns the lease of the node with an instance id, the oldest if there are several, or nil. It needs no
// rules.
func (v *View) ByInstance(id string) *Lease {
	var own *entry
	for _, e := range v.entries {
		if e.InstanceID == id && v.bad[e] == nil && (own == nil || own.newer(e)) {
			own = e
		}
	}
	if own == nil {
		return nil
	}
	l := *own.Lease
	return &l
}

// own finds the node's own record. By instance id first: it stays the same when the public IP changes, and a record
// with it is ours to replace. A record with our public IP is flannel's, a reservation, ours from before the state
// directory was lost, or that of another node with our public IP: it is taken over if it can be used and its holder is
// gone. ask is the one to prefer of those whose holder may be gone.
func (v *View) own(r Request) (own, ask *entry) {
	rank := func(e *entry) (n int, h Holder) {
		switch {
		case v.bad[e] != nil:
			return 0, HolderGone
		case r.InstanceID != "" && e.InstanceID == r.InstanceID:
			return 3, HolderGone
		case !samePublicIP(*e.Lease, r.PublicIPs) || !v.fitsSome(e) || v.beatenBy(e) != nil:
			return 0, HolderGone
		case e.LeaseID == 0:
			n = 2
		default:
			n = 1
		}
		if r.Holder == nil || e.LeaseID == 0 && e.InstanceID == "" {
			return n, HolderGone
		}
		return n, r.Holder(v.record(e, e.Lease))
	}
	var ranks [2]int // of own and of ask
	for _, e := range v.entries {
		n, h := rank(e)
		best, at := &own, &ranks[0]
		switch h {
		case HolderUnknown:
			best, at = &ask, &ranks[1]
		case HolderAlive:
			continue
		}
		if n > *at || n > 0 && n == *at && (*best).newer(e) {
			*best, *at = e, n
		}
	}
	return own, ask
}

// mayKeep reports whether own's subnet in f can stay the node's.
func (v *View) mayKeep(own *entry, f Family) bool {
	p := own.Endpoints[f].Subnet
	return v.rules.Config.Ranges[f].Fits(p) && v.beatenBy(own) == nil && !v.rules.heldOfUnderlay(p).IsValid()
}

// fitsSome reports whether one of e's subnets may still be leased.
func (v *View) fitsSome(e *entry) bool {
	for _, f := range Families() {
		if v.rules.Config.Ranges[f].Fits(e.Endpoints[f].Subnet) {
			return true
		}
	}
	return false
}

func samePublicIP(l Lease, ips [2]netip.Addr) bool {
	for _, f := range Families() {
		if a := l.Endpoints[f].PublicIP; a.IsValid() && a == ips[f] {
			return true
		}
	}
	return false
}

// free reports whether no entry but self has any address of p.
func (v *View) free(f Family, p netip.Prefix, self *entry, r Request) bool {
	return !slices.ContainsFunc(r.Avoid, p.Overlaps) &&
		!v.rules.heldOfUnderlay(p).IsValid() &&
		v.overlappingPrefix(f, p, func(at []*entry) bool {
			return !slices.ContainsFunc(at, func(x *entry) bool { return x != self && v.occupies(x, f) })
		})
}

// occupies reports whether no other lease can have e's subnet in f. A malformed record occupies its subnet as well: in
// etcd, its key cannot be created a second time. A subnet that no lease can have, such as 0.0.0.0/0, may not use up the
// whole range.
func (v *View) occupies(e *entry, f Family) bool {
	return v.rules.Config.Ranges[f].CheckPeer(e.Endpoints[f].Subnet) == nil
}

// pick returns a free subnet: the one with the index that like has in its own family, else one at random.
func (v *View) pick(f Family, self *entry, r Request, like netip.Prefix) (netip.Prefix, error) {
	rng := v.rules.Config.Ranges[f]
	if i, ok := v.rules.Config.Ranges[IPv4].absolute(like); ok {
		if p, ok := rng.atAbsolute(i); ok && v.free(f, p, self, r) {
			return p, nil
		}
	}
	taken := v.taken(f, self, r)
	free := rng.Count()
	for _, t := range taken {
		free -= t.last - t.first + 1
	}
	if free == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: all %d subnets from %s to %s (/%d) are leased; "+
			"delete leases of nodes that are gone, or widen Network or SubnetMin and SubnetMax in the network config",
			ErrFull, rng.Count(), rng.Min, rng.Max, rng.SubnetLen)
	}
	// The n-th free index: n, moved up by every taken run at or below it.
	n := r.Rand(free)
	for _, t := range taken {
		if t.first > n {
			break
		}
		n += t.last - t.first + 1
	}
	return rng.At(n), nil
}

// run is a run of indices in a Range, both ends included.
type run struct{ first, last uint64 }

// taken returns which indices of the range are in use, as sorted runs that neither overlap nor touch each other.
func (v *View) taken(f Family, self *entry, r Request) []run {
	rng := v.rules.Config.Ranges[f]
	var runs []run
	add := func(p netip.Prefix) {
		if t, ok := rng.cover(p); ok {
			runs = append(runs, t)
		}
	}
	v.overlappingPrefix(f, rng.Network, func(at []*entry) bool {
		for _, e := range at {
			if e != self && v.occupies(e, f) {
				add(e.Endpoints[f].Subnet)
				break // the others are in the same place
			}
		}
		return true
	})
	for _, p := range r.Avoid {
		if FamilyOf(p.Addr()) == f {
			add(p)
		}
	}
	for _, p := range v.rules.Underlay {
		if p.Bits() >= rng.SubnetLen { // a wider one is no subnet's to hold
			add(p)
		}
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	merged := runs[:0]
	for _, t := range runs {
		if n := len(merged); n > 0 && t.first <= merged[n-1].last+1 {
			merged[n-1].last = max(merged[n-1].last, t.last)
		} else {
			merged = append(merged, t)
		}
	}
	return merged
}
