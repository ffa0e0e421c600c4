// Package connectivity tests a cluster's network from inside: it runs pods of its own on the nodes, has them call each
// other, nodes, Services, names and the outside, and says what was not answered as it has to be.
//
// What is called and what has to be answered is decided in pure functions (plan.go, judge.go); a [Run] has the calls
// made in a [Cluster]: one of [Kubernetes], or a lab.
package connectivity

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// Report is what a test found.
type Report struct {
	Nodes  []string      `json:"nodes"`           // with pods of the test
	Image  string        `json:"image,omitempty"` // of the pods in Kubernetes
	Checks []Check       `json:"checks"`
	Took   time.Duration `json:"took_ns"`
}

// OK reports whether nothing failed.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return len(c.Failures) > 0 })
}

// Check is one kind of thing that was tried, in one family.
type Check struct {
	Name     string        `json:"name"`
	Family   string        `json:"family,omitempty"` // "IPv4" or "IPv6"; empty: of neither
	Probes   int           `json:"probes"`           // calls, or the datagrams of streams
	Failed   int           `json:"failed"`           // of them
	Failures []Failure     `json:"failures,omitempty"`
	NotRun   string        `json:"not_run,omitempty"` // why, for people; empty: it was run
	Took     time.Duration `json:"took_ns"`
}

// Title returns the check's name, with its family.
func (c Check) Title() string {
	if c.Family == "" {
		return c.Name
	}
	return fmt.Sprintf("%s (%s)", c.Name, c.Family)
}

// Failure is a probe that was not answered as it had to be.
type Failure struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Error string `json:"error"` // for people
}

// String returns who called whom, and what was wrong.
func (f Failure) String() string {
	if f.To == "" {
		return fmt.Sprintf("%s: %s", f.From, f.Error)
	}
	return fmt.Sprintf("%s -> %s: %s", f.From, f.To, f.Error)
}

// Place is where calls come from: a pod of the test, or a daemon's, which is in its node's network.
type Place struct {
	Name  string
	Node  string
	Addrs [2]netip.Addr // by family; zero: it has none
}

// probe is one call and what has to be answered.
type probe struct {
	check  string
	family subnet.Family
	any    bool // of neither family
	from   int  // index of the caller among those of its plan
	to     string
	call   agent.Call
	want   want
}

// want is what has to come of a call.
type want struct {
	denied bool         // no answer at all
	by     string       // name of the pod that answers; empty: any
	seen   []netip.Addr // the source address that it sees is one of these; empty: any
}

// PodsStarted returns the check of so many pods, all of which are ready.
func PodsStarted(n int) Check { return Check{Name: podsStart, Probes: n} }
