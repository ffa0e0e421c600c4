package network

import (
	"testing"
	"time"
)

// TestDrain: what the kernel tells of a pass's own changes is taken in while it goes on if there is much of it, and only then.
func TestDrain(t *testing.T) {
	for peers, want := range map[int]bool{10: false, 2 * drainFrom: true} {
		r, _ := node(0)
		for i := range peers {
			r.Tables.Replace(Owner{Name: "peer"}, State{}, byID(peer(i)))
		}
		var pending []int
		r.Drain = func() { pending = append(pending, r.Tables.Pending()) }
		if got := r.Pass(time.Unix(0, 0)); r.Tables.Pending() > 0 {
			t.Errorf("%d peers: %d pending after the pass, %v", peers, r.Tables.Pending(), got.Failures)
		}
		if (len(pending) > 0) != want || want && pending[0] == 0 {
			t.Errorf("%d peers: drained with %v pending, want it in the middle: %t", peers, pending, want)
		}
	}
}
