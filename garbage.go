package main

import (
	"os"
	"runtime/debug"
)

// How far the heap may grow beyond the memory in use, in percent; see GOGC in package runtime. A store that reports
// every change of a Node, whether or not it concerns the lease, makes some garbage at rest too. Network policies follow
// the pods of the whole cluster: with restGarbage, a change of a policy among 10,000 pods took three times as long,
// since half of all changes met a collection.
const (
	startGarbage  = 20
	restGarbage   = 10
	policyGarbage = 25
)

// limitGarbage prefers less memory to fewer garbage collections: at rest, the daemon hardly allocates.
func (f *flags) limitGarbage() {
	collect := func(percent int) {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(percent)
		}
	}
	collect(startGarbage)
	f.node.AtRest = func() {
		percent := restGarbage
		if f.node.Policies != nil {
			percent = policyGarbage
		}
		collect(percent)
		debug.FreeOSMemory() // what a start took; the Go runtime would return it over some minutes
	}
}
