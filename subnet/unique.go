package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ErrDuplicate is why a lease is rejected that has something which an older one keeps, and only one may have; see
// Rules.Check. Of the node's own lease it says that the node has to choose another such thing. The subnets stay the
// lease's own: no other can have them.
var ErrDuplicate = errors.New("is that of the older lease")

// things are what a lease has of what only one may have, see Rules.Check, joined to one text: few leases have more than
// one.
type things string

const thingsEnd = "\n" // a text for people has none

func joinThings(all []string) things { return things(strings.Join(all, thingsEnd)) }

// each calls yield with each of them, until it returns false.
func (t things) each(yield func(string) bool) {
	for thing := range strings.SplitSeq(string(t), thingsEnd) {
		if thing != "" && !yield(thing) {
			return
		}
	}
}

// claim enters all as the things that e claims and only one lease may have. The error names an older lease that keeps
// one of them. A lease that loses one thing keeps nothing at all, as one that loses one subnet holds none.
func (v *View) claim(e *entry, all things) error {
	if all != e.things {
		v.disclaim(e)
		e.things = all
		for thing := range all.each {
			v.byThing.add(thing, e)
		}
	}
	why := v.keptByOlder(e)
	if keeps := why == nil && all != ""; keeps != e.keeps {
		e.keeps = keeps
		for thing := range all.each {
			v.byThing.lead(thing, e, keeps)
		}
		v.markSharing(e)
	}
	return why
}

// disclaim undoes claim. Every other lease that has one of the things is judged again.
func (v *View) disclaim(e *entry) {
	if e.keeps {
		v.markSharing(e)
	}
	for thing := range e.things.each {
		v.byThing.remove(thing, e)
	}
	e.things, e.keeps = "", false
}

// keptByOlder says which older entry keeps something that e has.
func (v *View) keptByOlder(e *entry) (why error) {
	for thing := range e.things.each {
		v.byThing.each(thing, func(x *entry) bool {
			if x.keeps && e.newer(x) {
				why = fmt.Errorf("%s %w %s", thing, ErrDuplicate, x.Name)
			}
			return x.keeps && why == nil // the keepers come first
		})
		if why != nil {
			return why
		}
	}
	return nil
}

// markSharing has everything that shares a thing with e judged again.
func (v *View) markSharing(e *entry) {
	for thing := range e.things.each {
		v.byThing.each(thing, func(x *entry) bool {
			if x != e {
				v.mark(x)
			}
			return true
		})
	}
}

// SamePublicIP calls yield with every public IP that several peers have, and the names of their records, oldest first,
// until it returns false. Each of them may be right, behind one NAT. It may also be a cloned machine, or what a node
// left behind when it got another instance id. A lease with this node's own public IP is rejected and so not among
// them.
func (v *View) SamePublicIP(yield func(ip netip.Addr, names []string) bool) {
	for ip, at := range v.byPublicIP.many {
		peers := slices.SortedFunc(slices.Values(at), (*entry).compare)
		names := make([]string, len(peers))
		for i, e := range peers {
			names[i] = e.Name
		}
		if !yield(ip, names) {
			return
		}
	}
}

// reindexPublicIPs follows a change of a peer.
func (v *View) reindexPublicIPs(e *entry, c Change) {
	for _, f := range Families() {
		before, after := publicIP(c.Before, f), publicIP(c.After, f)
		if before == after {
			continue
		}
		if before.IsValid() {
			v.byPublicIP.remove(before, e)
		}
		if after.IsValid() {
			v.byPublicIP.add(after, e)
		}
	}
}

func publicIP(l *Lease, f Family) netip.Addr {
	if l == nil {
		return netip.Addr{}
	}
	return l.Endpoints[f].PublicIP
}
