// Package storetest is the contract of a [subnet.Store] as one suite of tests. Every store passes the parts for its
// [Kind], against the real thing:
//
//	func TestStore(t *testing.T) {
//		kind := storetest.Kind{Expires: true, Challenges: true}
//		storetest.Run(t, kind, func(t *testing.T) storetest.Cluster { return newCluster(t) })
//	}
//
// Each case gets a cluster of its own, which is empty, and watches it with a [Watcher]. That checks of every event what
// holds for all of them, and keeps what they amount to; a case waits for that to become what it wants.
//
// Package memstore is a store in memory, of either kind.
package storetest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Kind says what a store can do. Run leaves out the parts of the suite that are for other kinds:
//
//	part                                            for which kind
//	Watch, Harm                                     every
//	Keys, Claim, TakeOver, Hold, Release, Contend   the node allocates
//	HarmHeld                                        the same
//	Expiry                                          the same, and leases expire
//	Challenge                                       the same, and holders can be asked
//	Allocated, HarmAllocated                        the store allocates
type Kind struct {
	Allocates bool // it gives the nodes their subnets ([subnet.Allocator]); else a node chooses, and records are keys
	Expires   bool // a lease that is not renewed ends ([subnet.Expirer])
	// Challenges means that holders can be asked whether they are alive ([subnet.Challenger]).
	Challenges bool
}

// Cluster is an empty store and what can be done to it from outside.
type Cluster struct {
	// Open returns another client of the cluster, which it closes at the test's end. In a store that allocates, the
	// client is of a node that does not exist.
	Open func(t *testing.T) subnet.Store
	// Write does what an operator does by hand: it sets "config" or, unless the store allocates, a key such as
	// "subnets/10.5.1.0-24", without a lease.
	Write func(t *testing.T, key, value string)
	// Delete removes such a key.
	Delete func(t *testing.T, key string)

	// OpenLasting is Open, with leases that run for longer than any test: a node does not lose those to time. For a
	// store in which nodes allocate.
	OpenLasting func(t *testing.T) subnet.Store
	// Expire ends a claimed record at once. For a store with expiry.
	Expire func(t *testing.T, r subnet.Record)
	// Nodes is for a store that allocates.
	Nodes *Nodes

	// Harm is what can be done to the store itself; nil if other tests share it.
	Harm *Harm
}

// Nodes is what makes nodes known to a store that allocates.
type Nodes struct {
	// Open returns a client of the node name, which need not exist yet.
	Open func(t *testing.T, name string) subnet.Store
	// Add makes a node known, and Allocate gives it its subnets.
	Add      func(t *testing.T, name string)
	Allocate func(t *testing.T, name string, subnets ...netip.Prefix)
	// Publish writes what the node itself claims, with another client: everything but the subnets of l.
	Publish func(t *testing.T, name string, l subnet.Lease)
	// Remove makes the node unknown again, and with it its lease.
	Remove func(t *testing.T, name string)
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
const patience = 2 * time.Minute

// Run runs the suite for a kind of store. The leases of the stores that Open returns must run for no more than a few
// seconds: some cases wait until one that is not held ends.
func Run(t *testing.T, kind Kind, fresh func(t *testing.T) Cluster) {
	run(t, kind, fresh, []testGroup{
		{"Watch", everyStore, watchCases()},
		{"Keys", nodeAllocates, keyCases()},
		{"Claim", nodeAllocates, claimCases()},
		{"TakeOver", nodeAllocates, takeOverCases()},
		{"Hold", nodeAllocates, holdCases()},
		{"Release", nodeAllocates, releaseCases()},
		{"Contend", nodeAllocates, contendCases()},
		{"Expiry", leasesExpire, expiryCases()},
		{"Challenge", holdersAnswer, challengeCases()},
		{"Allocated", storeAllocates, allocatedCases()},
	})
}

// RunHarm runs the part of the suite that breaks the store. It belongs to the same contract; its clusters have Harm
// set.
func RunHarm(t *testing.T, kind Kind, fresh func(t *testing.T) Cluster) {
	run(t, kind, fresh, []testGroup{
		{"Harm", everyStore, harmCases()},
		{"HarmHeld", nodeAllocates, harmHeldCases()},
		{"HarmAllocated", storeAllocates, harmAllocatedCases()},
	})
}

// A group of cases is for the kinds that fits accepts.
type testGroup struct {
	name  string
	fits  func(Kind) bool
	cases []testCase
}

func everyStore(Kind) bool       { return true }
func nodeAllocates(k Kind) bool  { return !k.Allocates }
func leasesExpire(k Kind) bool   { return !k.Allocates && k.Expires }
func holdersAnswer(k Kind) bool  { return !k.Allocates && k.Challenges }
func storeAllocates(k Kind) bool { return k.Allocates }

type testCase struct {
	name string
	run  func(t *testing.T, c Cluster)
}

func run(t *testing.T, kind Kind, fresh func(t *testing.T) Cluster, groups []testGroup) {
	for _, group := range groups {
		if !group.fits(kind) {
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					cluster := fresh(t)
					kind.check(t, cluster.Open(t))
					c.run(t, cluster)
				})
			}
		})
	}
}

// check compares what a store implements with its kind.
func (k Kind) check(t *testing.T, s subnet.Store) {
	t.Helper()
	allocator, _ := s.(subnet.Allocator)
	_, expires := s.(subnet.Expirer)
	_, challenges := s.(subnet.Challenger)
	if got := (Kind{allocator != nil && allocator.Allocates(), expires, challenges}); got != k {
		t.Fatalf("the store is of kind %+v, want %+v", got, k)
	}
}
