package connectivity

import (
	"context"
	"io"
)

// Cluster is where a test runs: what has its pods, and has calls made from them.
type Cluster interface {
	// Start starts the pods of the test, two on each node, and returns what can be called. The check says of pods that
	// are not ready why. No pods at all in the ends: the test ends with that check. Remove is called in any case.
	Start(ctx context.Context) (Ends, Check, error)
	// Probe runs [agent.Perform] at a place, with this input and output. It prints what goes wrong to problems.
	Probe(ctx context.Context, at Place, in io.Reader, out, problems io.Writer) error
	// Lacks returns why something cannot be tried in this cluster, for people; empty: it can.
	Lacks(ctx context.Context, ends Ends, what Feature) (why string, err error)
	// ApplyPolicies denies the first pods everything but calls of the second ones, and the second everything but calls
	// by the first. DeletePolicies allows all again.
	ApplyPolicies(context.Context) error
	DeletePolicies(context.Context) error
	// Restart restarts the daemons, node by node, and returns when all run again.
	Restart(context.Context) error
	// Remove removes all that the test created, also if ctx has ended.
	Remove(ctx context.Context) error
}

// Feature is what a cluster can lack.
type Feature int

// What a cluster can lack.
const (
	Services    Feature = iota
	NameService         // a DNS server
	Enforcement         // daemons that enforce network policies
	Restarting          // a way to restart the daemons
)
