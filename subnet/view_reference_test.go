package subnet

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// compare looks whether what was told is what the reference says.
func (w *world) compare() {
	want := w.reference()
	if !maps.Equal(w.told, want.peers) {
		w.t.Errorf("told:\n%v\nwant:\n%v", w.told, want.peers)
	}
	valid, quarantined := w.view.Len()
	if valid != len(want.admitted) || valid+quarantined != len(w.view.entries) {
		w.t.Errorf("%d valid and %d quarantined, want %d of %d", valid, quarantined, len(want.admitted), len(w.view.entries))
	}
	beaten := map[string]string{}
	for key, why := range w.view.Quarantined {
		m, ok, again := w.view.Get(key)
		if !ok || why == nil || again != why || want.admitted[key] || m.Name != key {
			w.t.Errorf("%s is quarantined: %v; and %+v, %t, %v", key, why, m, ok, again)
		}
		if errors.Is(why, ErrDuplicate) {
			beaten[key] = why.Error()
		}
		quarantined--
	}
	if quarantined != 0 {
		w.t.Errorf("quarantined: %d too few", quarantined)
	}
	if !maps.Equal(beaten, want.beaten) {
		w.t.Errorf("duplicates:\n%v\nwant:\n%v", beaten, want.beaten)
	}
	same := map[netip.Addr]string{}
	for ip, keys := range w.view.SamePublicIP {
		same[ip] = fmt.Sprint(keys)
	}
	if !maps.Equal(same, want.same) {
		w.t.Errorf("with the same public IP:\n%v\nwant:\n%v", same, want.same)
	}
	w.compareOrder()
}

// compareOrder looks whether those that have what they claim come before those that do not.
func (w *world) compareOrder() {
	behind := func(a, b bool) int { // sorts true before false
		if a == b {
			return 0
		} else if a {
			return -1
		}
		return 1
	}
	for f := range w.view.bySubnet {
		for p, at := range w.view.bySubnet[f].All() {
			if !slices.IsSortedFunc(at, func(a, b *entry) int { return behind(a.holds, b.holds) }) {
				w.t.Errorf("%s: a holder behind others", p)
			}
		}
	}
	for thing, at := range w.view.byThing.many {
		if !slices.IsSortedFunc(at, func(a, b *entry) int { return behind(a.keeps, b.keeps) }) {
			w.t.Errorf("%s: a keeper behind others", thing)
		}
	}
}

// verdict is what a reference makes of all records.
type verdict struct {
	peers    map[string]Lease
	admitted map[string]bool
	beaten   map[string]string     // why, by key, for those with something that an older one keeps
	same     map[netip.Addr]string // public IPs of several peers, and their keys
}

// reference goes through all records, oldest first, and lets each in that passes the rules and neither overlaps nor has
// what one before it has.
func (w *world) reference() verdict {
	v := verdict{map[string]Lease{}, map[string]bool{}, map[string]string{}, map[netip.Addr]string{}}
	if w.rules == nil || !w.synced {
		return v
	}
	var holders []Lease
	keepers := map[string]string{}
	public := map[netip.Addr][]string{}
	for _, r := range slices.SortedFunc(maps.Values(w.seen), func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	}) {
		l := r.Lease
		if r.Bad != nil {
			continue
		}
		for f, rng := range w.rules.Config.Ranges {
			if rng == (Range{}) {
				l.Endpoints[f] = Endpoint{}
			}
		}
		contains := func(a, b Lease) bool { // one of a's subnets b's public IP
			for f := range b.Endpoints {
				if b.Has(Family(f)) && a.Endpoints[f].Subnet.Contains(b.Endpoints[f].PublicIP) {
					return true
				}
			}
			return false
		}
		if w.rules.fits(&l) != nil || slices.ContainsFunc(holders, func(h Lease) bool {
			return h.Endpoints[IPv4].Subnet.Overlaps(l.Endpoints[IPv4].Subnet) ||
				h.Endpoints[IPv6].Subnet.Overlaps(l.Endpoints[IPv6].Subnet) || contains(h, l) || contains(l, h)
		}) {
			continue
		}
		holders = append(holders, l)
		var things []string
		var unfit error
		if w.rules.Check != nil {
			things, unfit = w.rules.Check(l)
		}
		if i := slices.IndexFunc(things, func(thing string) bool { return keepers[thing] != "" }); i >= 0 {
			v.beaten[r.Name] = things[i] + " is that of the older lease " + keepers[things[i]]
			continue
		}
		for _, thing := range things {
			keepers[thing] = r.Name
		}
		own := l.InstanceID == w.rules.InstanceID
		if !own && (w.rules.usable(&l) != nil || unfit != nil) {
			continue
		}
		v.admitted[r.Name] = true
		if own {
			continue
		}
		v.peers[r.Name] = l
		for _, e := range l.Endpoints {
			if public[e.PublicIP] = append(public[e.PublicIP], r.Name); e.PublicIP.IsValid() && len(public[e.PublicIP]) > 1 {
				v.same[e.PublicIP] = fmt.Sprint(public[e.PublicIP])
			}
		}
	}
	return v
}
