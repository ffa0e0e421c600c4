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
	// OpenLasting is Open, with leases that run for longer than any test: what a node loses then it does not lose to time.
	OpenLasting func(t *testing.T) subnet.Store
	// Write does what an operator does by hand: it sets a key below the prefix, such as "config" or
	// "subnets/10.5.1.0-24", without a lease.
	Write func(t *testing.T, key, value string)
	// Delete removes such a key.
	Delete func(t *testing.T, key string)
	// Expire makes a claimed record's time run out at once.
	Expire func(t *testing.T, r subnet.Record)
	// Harm is what can be done to the store itself; nil if it is not this test's alone.
	Harm *Harm
}

// Harm breaks a store, and all connections to it.
type Harm struct {
	// Restart starts the store again as it was.
	Restart func(t *testing.T)
	// Wipe starts it again with nothing in it.
	Wipe func(t *testing.T)
	// Backup returns what starts it again as it is now.
	Backup func(t *testing.T) (restore func(t *testing.T))
	// Compact makes it forget its past, but for what is in force.
	Compact func(t *testing.T)
}

// patience is how long a case waits for what must happen soon. Nothing depends on how soon it is.
const patience = 30 * time.Second

// Run runs the suite. The leases of the stores that Open returns must run for no more than a few seconds: some cases wait
// until one that nobody holds is over.
func Run(t *testing.T, fresh func(t *testing.T) Cluster) {
	run(t, fresh, []testGroup{
		{"Watch", watchCases()},
		{"Claim", claimCases()},
		{"TakeOver", takeOverCases()},
		{"Hold", holdCases()},
		{"Release", releaseCases()},
		{"Contend", contendCases()},
	})
}

// RunHarm runs the part of the suite that breaks the store. It belongs to the same contract; its clusters have Harm set.
func RunHarm(t *testing.T, fresh func(t *testing.T) Cluster) {
	run(t, fresh, []testGroup{{"Harm", harmCases()}})
}

type testGroup struct {
	name  string
	cases []testCase
}

func run(t *testing.T, fresh func(t *testing.T) Cluster, groups []testGroup) {
	for _, group := range groups {
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
