package uplink

import "slices"

// others returns the usable interfaces that were not chosen, with the reasons. Those in rejected are left out, and so
// are interfaces without a usable address, such as the veth of a pod.
func (o Options) others(
	chosen candidate, candidates []candidate, rejected []Rejection, s Snapshot,
) (others []Rejection) {
	for _, l := range s.Links {
		is := func(c candidate) bool { return c.link.Index == l.Index }
		isRejected := slices.ContainsFunc(rejected, func(r Rejection) bool { return r.Name == l.Name })
		if l.Loopback || is(chosen) || isRejected {
			continue
		}
		if _, unusable := o.take(candidate{link: l}, s); unusable != "" {
			continue
		}
		why := "is not selected by " + o.criterion()
		if slices.ContainsFunc(candidates, is) {
			why = "has lower precedence by " + o.criterion()
		}
		others = append(others, Rejection{l.Name, why})
	}
	return others
}
