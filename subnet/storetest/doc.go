// Package storetest is what every [subnet.Store] must do, as one suite of tests. A store, and a fake of one, passes it:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Cluster { return newCluster(t) })
//	}
//
// Each case gets a cluster of its own, which is empty, and watches it with a [Watcher]. That checks of every event what
// holds for all of them, and keeps what they amount to; a case waits for that to become what it wants.
package storetest

import (
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Cluster is an empty store and what can be done to it besides.
type Cluster struct {
	// Open returns another client of the cluster, which it closes at the test's end.
	Open func(t *testing.T) subnet.Store
	// Write does what an operator does by hand: it sets a key below the prefix, such as "config" or
	// "subnets/10.5.1.0-24", without a lease.
	Write func(t *testing.T, key, value string)
	// Delete removes such a key.
	Delete func(t *testing.T, key string)
	// Expire makes a claimed record's time run out at once.
	Expire func(t *testing.T, r subnet.Record)
}

// patience is how long a case waits for what must happen soon. Nothing depends on how soon it is.
const patience = 30 * time.Second

// Run runs the suite. The leases of the stores that are opened must run for no more than a few seconds: some cases wait
// until one that nobody holds is over.
func Run(t *testing.T, fresh func(t *testing.T) Cluster) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"Watch", watchCases()},
		{"Claim", claimCases()},
		{"TakeOver", takeOverCases()},
		{"Hold", holdCases()},
		{"Release", releaseCases()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.run(t, fresh(t))
				})
			}
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, c Cluster)
}
