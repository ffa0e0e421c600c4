package uplink

import "slices"

// others says of each interface that could carry the overlay, and is not the one chosen, why it is not. Those that were
// tried before it are in rejected. Interfaces without a usable address, such as a pod's veth, are nobody's question.
func (o Options) others(chosen candidate, candidates []candidate, rejected []Rejection, s Snapshot) (others []Rejection) {
	for _, l := range s.Links {
		is := func(c candidate) bool { return c.link.Index == l.Index }
		if l.Loopback || is(chosen) || slices.ContainsFunc(rejected, func(r Rejection) bool { return r.Name == l.Name }) {
			continue
		}
		if _, unfit := o.take(candidate{link: l}, s); unfit != "" {
			continue
		}
		why := "is not what " + o.asked() + " leads to"
		if slices.ContainsFunc(candidates, is) {
			why = "comes after it by " + o.asked()
		}
		others = append(others, Rejection{l.Name, why})
	}
	return others
}
