package subnet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Rules say which leases a [View] accepts. Config decides which leases hold their subnets, and what Check returns as
// unique which of those keep what only one may have, so that every node decides alike. The rest are one node's own: a
// lease that fails them is rejected here, and still takes precedence over newer ones.
type Rules struct {
	Config Config
	// Leaving is the backend that the network is moving away from; empty: it is not moving. Leases of it are accepted,
	// too.
	Leaving string

	InstanceID string        // ours: a lease that carries it is our own, not a peer's
	PublicIPs  [2]netip.Addr // ours, by Family: no peer can have them, nor can they be in a peer's subnet
	// Underlay is what of the underlay no peer's subnet may contain as a whole, or this node would lose it: the
	// prefixes that are on-link on the uplink, and, as single addresses, gateways and the store's endpoints. An overlay
	// inside a wider on-link prefix does no harm.
	Underlay []netip.Prefix
	// Check is the backend's part. It is pure, and called with leases that hold their subnets, our own too; nil:
	// nothing is unique, and all leases are accepted.
	//
	// unique are the things that no two leases may share, each once and as a text for people, such as "MAC
	// 0e:00:00:00:00:01 (IPv4)". They depend on nothing but the lease and Config. The error is why this node cannot use
	// a peer's lease that is good otherwise; it may depend on the node.
	Check func(Lease) (unique []string, err error)
}

// ErrOverlap is why a lease is rejected that shares addresses with an older one.
var ErrOverlap = errors.New("overlaps the older lease")

// ErrOwnPublicIP is why a lease is rejected that has this node's own public IP.
var ErrOwnPublicIP = errors.New("is our own")

// own reports whether l is this node's.
func (r *Rules) own(l *Lease) bool { return r.InstanceID != "" && l.InstanceID == r.InstanceID }

// enabled returns l without the families that the config does not enable: a dual-stack node in a network that is not
// counts with its other family.
func (r *Rules) enabled(l *Lease) *Lease {
	for _, f := range Families() {
		if !r.Config.Ranges[f].Enabled() && l.Endpoints[f] != (Endpoint{}) {
			part := *l
			part.Endpoints[f] = Endpoint{}
			l = &part
		}
	}
	return l
}

// fits says why l cannot hold its subnets, or nil. It may look at the lease and the config only: see [Rules]. There is
// one exception: an IPv4 link-local public IP is good among nodes that have such addresses, which are all on one link.
func (r *Rules) fits(l *Lease) error {
	if l.stray() {
		return fmt.Errorf("no subnet in a family that the network config enables")
	}
	for _, f := range Families() {
		if !l.Has(f) {
			continue
		}
		if err := r.Config.Ranges[f].CheckPeer(l.Endpoints[f].Subnet); err != nil {
			return err
		}
		switch a := l.Endpoints[f].PublicIP; {
		case !isUnicast(a) && !(a.Is4() && a.IsLinkLocalUnicast() && r.PublicIPs[f].IsLinkLocalUnicast()):
			return fmt.Errorf("public IP %s is not a unicast address", a)
		case r.Config.Ranges[f].inside(a):
			return fmt.Errorf("public IP %s is inside the overlay %s", a, r.Config.Ranges[f].Network)
		case l.Endpoints[f].Subnet.Contains(a):
			return fmt.Errorf("public IP %s is inside its own subnet %s", a, l.Endpoints[f].Subnet)
		}
	}
	if _, receives := l.As(r.Config.Backend.Type); !receives && (r.Leaving == "" || l.BackendType != r.Leaving) {
		why := ""
		if r.Config.Encrypted {
			why = ": the network config requires encryption"
		}
		return fmt.Errorf("backend is %q, want %q%s", l.BackendType, r.Config.Backend.Type, why)
	}
	return nil
}

// isUnicast reports whether packets to a can be meant for one node: 0.0.0.0/8 is no destination (RFC 1122).
func isUnicast(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !(a.Is4() && a.As4()[0] == 0)
}

// usable says why this node cannot have l as a peer, or nil; the backend may have another reason, see Check.
func (r *Rules) usable(l *Lease) error {
	for _, f := range Families() {
		e, ours := l.Endpoints[f], r.PublicIPs[f]
		if !l.Has(f) {
			continue
		}
		if ours.IsValid() && e.PublicIP == ours {
			return fmt.Errorf("public IP %s %w", ours, ErrOwnPublicIP)
		}
		if e.Subnet.Contains(ours) {
			return fmt.Errorf("subnet %s holds our own public IP %s", e.Subnet, ours)
		}
		if p := r.heldOfUnderlay(e.Subnet); p.IsValid() {
			return fmt.Errorf("subnet %s holds %s of the underlay", e.Subnet, p)
		}
		if p := r.broadcasts(e.PublicIP); p.IsValid() {
			return fmt.Errorf("public IP %s is the broadcast address of %s", e.PublicIP, p)
		}
	}
	return nil
}

// heldOfUnderlay returns a prefix of the underlay that lies in subnet as a whole, or the zero value.
func (r *Rules) heldOfUnderlay(subnet netip.Prefix) netip.Prefix {
	for _, p := range r.Underlay {
		if subnet.Bits() <= p.Bits() && subnet.Contains(p.Addr()) {
			return p.Masked()
		}
	}
	return netip.Prefix{}
}

// broadcasts returns the prefix of the underlay that a is the broadcast address of, or the zero value. There is none in
// a /31 (RFC 3021), nor in IPv6.
func (r *Rules) broadcasts(a netip.Addr) netip.Prefix {
	for _, p := range r.Underlay {
		if p.Addr().Is4() && p.Bits() <= 30 && p.Contains(a) && !p.Contains(a.Next()) {
			return p.Masked()
		}
	}
	return netip.Prefix{}
}

// judge decides every dirty entry, and those that depend on a decision that changed. A decision depends on older
// entries only, so this ends, and with the same result in whatever order; the oldest are decided first, so that few are
// decided twice.
func (v *View) judge() []Change {
	if v.rules == nil || !v.synced || v.listing {
		return nil // dirty entries wait for the rules and for the whole snapshot
	}
	var touched []*entry
	for len(v.dirty) > 0 {
		batch := v.dirty
		v.dirty = nil
		slices.SortFunc(batch, (*entry).compare)
		touched = append(touched, batch...)
		for _, e := range batch {
			e.dirty = false
			if e.gone {
				continue
			}
			v.decide(e)
		}
	}
	var changes []Change
	for _, e := range touched {
		if c, ok := v.announce(e); ok {
			changes = append(changes, c)
		}
	}
	return changes
}

// decide judges e, and marks what depends on a decision that changed.
func (v *View) decide(e *entry) {
	l := v.rules.enabled(e.Lease)
	v.expose(e, l)
	why := v.cannotHold(e, l)
	if holds := why == nil; holds != e.holds {
		e.holds = holds
		for _, f := range Families() {
			at, _ := v.bySubnet[f].Get(e.Endpoints[f].Subnet)
			lead(at, e, holds)
		}
		v.markOverlapping(e)
	}
	var unique []string
	var unfit error
	if e.holds && v.rules.Check != nil {
		unique, unfit = v.rules.Check(*l)
	}
	if duplicate := v.claim(e, joinThings(unique)); duplicate != nil {
		why = duplicate
	}
	if why == nil && !v.rules.own(l) {
		if why = v.rules.usable(l); why == nil {
			why = short(unfit)
		}
	}
	e.why = why
}

// cannotHold says why e, of which l is what counts, does not hold its subnets, or nil.
func (v *View) cannotHold(e *entry, l *Lease) error {
	if bad := v.bad[e]; bad != nil {
		return bad
	}
	if err := v.rules.fits(l); err != nil {
		return err
	}
	if x := v.beatenBy(e); x != nil {
		return fmt.Errorf("%w %s", ErrOverlap, x.Name)
	}
	return v.exposedTo(e, l)
}

// beatenBy returns an older entry that holds a subnet which overlaps one of e's; nil if there is none.
func (v *View) beatenBy(e *entry) (older *entry) {
	v.overlapping(e, func(at []*entry) bool {
		for _, x := range at {
			if !x.holds {
				break // the holders come first
			}
			if e.newer(x) {
				older = x
			}
		}
		return older == nil
	})
	return older
}

// newer reports whether x takes precedence over e.
func (e *entry) newer(x *entry) bool { return e.compare(x) > 0 }

// compare orders entries by age, oldest first. Records can share an order, such as keys that one transaction created;
// then the name decides, so that every node decides alike.
func (e *entry) compare(x *entry) int {
	return cmp.Or(cmp.Compare(e.Order, x.Order), cmp.Compare(e.Name, x.Name))
}

// announce compares what was last returned to the caller of e with what holds now.
func (v *View) announce(e *entry) (Change, bool) {
	c := Change{Name: e.Name, Before: e.shown}
	if l := v.rules.enabled(e.Lease); !e.gone && e.why == nil && !v.rules.own(l) {
		c.After = l
	}
	if c.Before == c.After || c.Before != nil && c.After != nil && *c.Before == *c.After { // both nil, or equal
		return c, false
	}
	v.reindexPublicIPs(e, c)
	e.shown = c.After
	return c, true
}
