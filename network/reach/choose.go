package reach

import (
	"hash/fnv"
	"iter"
	"slices"
)

// Degree is how many other nodes a node probes, and by how many it is probed.
const Degree = 4

// candidate is a peer at a distance from this node in one circle.
type candidate struct {
	distance uint64
	name     string
}

// Choose returns the peers that a node probes, by name: at most [Degree], all of them in a small cluster. All nodes
// have to use the same names. It takes O(peers) time.
func Choose(self string, peers iter.Seq[string]) (names []string) {
	var nearest [Degree][]candidate // by circle; as many as may be chosen by the circles before
	own := hash(self)
	for name := range peers {
		h := hash(name)
		for i := range nearest {
			c := candidate{place(h, i) - place(own, i), name} // modulo the circle's length, 2^64
			at := len(nearest[i])
			for at > 0 && c.distance < nearest[i][at-1].distance {
				at--
			}
			if at < Degree {
				nearest[i] = slices.Insert(nearest[i], at, c)
				nearest[i] = nearest[i][:min(len(nearest[i]), Degree)]
			}
		}
	}
	for _, all := range nearest {
		for _, c := range all {
			if c.name != self && !slices.Contains(names, c.name) {
				names = append(names, c.name)
				break
			}
		}
	}
	return names
}

// hash returns the FNV-1a hash of a name (RFC 9923). It is the same in every version of selvaged.
func hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never fails
	return h.Sum64()
}

// place returns the place of a name's hash in a circle: another order in each. The function is the finalizer of
// SplitMix64, whose output bits all depend on all input bits.
func place(h uint64, circle int) uint64 {
	h += uint64(circle+1) * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
