package subnet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Rules say which leases a [View] lets in. Config decides which leases hold their subnets, so that every node decides
// alike. The rest are one node's own: a lease that fails them is not let in here, and still goes before newer ones.
type Rules struct {
	Config     Config
	InstanceID string        // ours: a lease that carries it is our own, not a peer's
	PublicIPs  [2]netip.Addr // ours, by Family: no peer can have them, nor can they be in a peer's subnet
	// Check is the last word on a peer's lease that is good otherwise; the backend says here whether it can use it. It
	// must be pure. nil takes all.
	Check func(Lease) error
}

// ErrOverlap is why a lease is not let in that shares addresses with an older one.
var ErrOverlap = errors.New("overlaps the older lease")

// own reports whether l is this node's.
func (r *Rules) own(l Lease) bool { return r.InstanceID != "" && l.InstanceID == r.InstanceID }

// enabled returns l without the families that the config does not enable: a dual-stack node in a network that is not
// counts with its other family.
func (r *Rules) enabled(l Lease) Lease {
	for _, f := range Families() {
		if !r.Config.Ranges[f].Enabled() {
			l.Endpoints[f] = Endpoint{}
		}
	}
	return l
}

// fits says why l cannot hold its subnets, or nil. It may look at the lease and the config only: see [Rules].
func (r *Rules) fits(l Lease) error {
	if !l.Has(IPv4) && !l.Has(IPv6) {
		return fmt.Errorf("no subnet in a family that the network config enables")
	}
	for _, f := range Families() {
		if !l.Has(f) {
			continue
		}
		if err := r.Config.Ranges[f].CheckPeer(l.Endpoints[f].Subnet); err != nil {
			return err
		}
		if a := l.Endpoints[f].PublicIP; !a.IsGlobalUnicast() {
			return fmt.Errorf("public IP %s is not a unicast address", a)
		} else if r.Config.Ranges[f].Network.Contains(a) {
			return fmt.Errorf("public IP %s is inside the overlay %s", a, r.Config.Ranges[f].Network)
		}
	}
	if l.BackendType != r.Config.Backend.Type {
		return fmt.Errorf("backend is %q, want %q", l.BackendType, r.Config.Backend.Type)
	}
	return nil
}

// usable says why this node cannot have l as a peer, or nil.
func (r *Rules) usable(l Lease) error {
	for _, f := range Families() {
		if e, ours := l.Endpoints[f], r.PublicIPs[f]; !l.Has(f) || !ours.IsValid() {
			continue
		} else if e.PublicIP == ours {
			return fmt.Errorf("public IP %s is our own", ours)
		} else if e.Subnet.Contains(ours) {
			return fmt.Errorf("subnet %s holds our own public IP %s", e.Subnet, ours)
		}
	}
	if r.Check != nil {
		return r.Check(l)
	}
	return nil
}

// judge decides every dirty entry, and those that hang on a decision that changed. A decision rests on older entries
// only, so this ends; the oldest go first, so that few are decided twice.
func (v *View) judge() []Change {
	if v.rules == nil || !v.synced || v.listing {
		return nil // dirty entries wait for the rules and for the whole picture
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
			before := e.holds
			e.holds, e.why = v.verdict(e)
			if before != e.holds {
				v.overlapping(e, func(x *entry) bool {
					if x.newer(e) {
						v.mark(x)
					}
					return true
				})
			}
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

// verdict reports whether e holds its subnets, and why it is not let in, or nil.
func (v *View) verdict(e *entry) (holds bool, why error) {
	if e.bad != nil {
		return false, e.bad
	}
	l := v.rules.enabled(e.Lease)
	if err := v.rules.fits(l); err != nil {
		return false, err
	}
	if x := v.beatenBy(e); x != nil {
		return false, fmt.Errorf("%w %s", ErrOverlap, x.Key)
	}
	if v.rules.own(l) {
		return true, nil
	}
	return true, v.rules.usable(l)
}

// beatenBy returns an older entry that holds a subnet which overlaps one of e's; nil if there is none.
func (v *View) beatenBy(e *entry) (older *entry) {
	v.overlapping(e, func(x *entry) bool {
		if x.holds && e.newer(x) {
			older = x
		}
		return older == nil
	})
	return older
}

// newer reports whether e has to give way to x where they overlap.
func (e *entry) newer(x *entry) bool { return e.compare(x) > 0 }

// compare orders entries by age, oldest first. Keys created in one transaction share a revision; the key then decides,
// so that every node decides alike.
func (e *entry) compare(x *entry) int {
	return cmp.Or(cmp.Compare(e.Created, x.Created), cmp.Compare(e.Key, x.Key))
}

// announce compares what the caller was last told of e with what holds now.
func (v *View) announce(e *entry) (Change, bool) {
	c := Change{Key: e.Key, Before: e.shown}
	if l := v.rules.enabled(e.Lease); !e.gone && e.why == nil && !v.rules.own(l) {
		c.After = &l
	}
	if c.Before == c.After || c.Before != nil && c.After != nil && *c.Before == *c.After { // both nil, or equal
		return c, false
	}
	e.shown = c.After
	return c, true
}
