package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	Pass    Level = "pass"
	Warning Level = "warning" // it works, and may not for long, or not for all
	Failure Level = "failure" // something does not work
)

func (l Level) rank() int { return slices.Index([]Level{Failure, Warning, Pass}, l) }

// Finding is what one check says.
type Finding struct {
	Check    string `json:"check"`
	Level    Level  `json:"level"`
	Evidence string `json:"evidence"`
	Advice   string `json:"advice,omitempty"` // what to do, with the command where there is one
}

// Report is the result of an examination.
type Report struct {
	Node     string    `json:"node,omitempty"`
	At       time.Time `json:"at"`
	Result   Level     `json:"result"`   // the worst
	Peers    int       `json:"peers"`    // there are
	Probed   int       `json:"probed"`   // of them
	Findings []Finding `json:"findings"` // the worst first
}

// Count is how many findings are of a level.
func (r Report) Count(l Level) (n int) {
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// passed, warning and failure make findings; a check's name is put in where it is run.
func passed(format string, args ...any) Finding {
	return Finding{Level: Pass, Evidence: fmt.Sprintf(format, args...)}
}

func warning(advice, format string, args ...any) Finding {
	return Finding{Level: Warning, Evidence: fmt.Sprintf(format, args...), Advice: advice}
}

func failure(advice, format string, args ...any) Finding {
	return Finding{Level: Failure, Evidence: fmt.Sprintf(format, args...), Advice: advice}
}

// judge runs the checks that are wanted.
func judge(f Facts, wanted func(check string) bool) (all []Finding) {
	for _, c := range checks() {
		if !wanted(c.name) {
			continue
		}
		for _, x := range c.run(f) {
			x.Check = c.name
			all = append(all, x)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	return all
}

// check is one thing to look at. It says something in any case, if there is anything to look at.
type check struct {
	name string
	run  func(Facts) []Finding
}

func checks() []check {
	return []check{
		{"daemon", checkDaemon},
		{"etcd", checkEtcd},
		{"kernel", checkKernel},
		{"forwarding", checkForwarding},
		{"router-advertisement", checkRouterAdvertisements},
		{"bridge-nf", checkBridgeFilter},
		{"filter", checkFilter},
		{"device", checkDevices},
		{"entries", checkEntries},
		{"routes", checkRoutes},
		{"neighbours", checkNeighbours},
		{"subnet-file", checkSubnetFile},
		{"bridge", checkBridge},
		{"cni", checkCNI},
		{"leases", checkLeases},
		{checkOfPeers, checkPeers},
	}
}

// checkOfPeers is the check for which other nodes are probed.
const checkOfPeers = "peers"

// Checks names the checks there are, in the order in which they are made.
func Checks() (names []string) {
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// KnownChecks says which of some names is no check's, or nil.
func KnownChecks(names []string) error {
	all := Checks()
	for _, n := range names {
		if !slices.Contains(all, n) {
			return fmt.Errorf("there is no check %q, want some of %s", n, strings.Join(all, ","))
		}
	}
	return nil
}

// some names a few of many: "a, b, c and 4 more".
func some(all []string) string {
	const few = 3
	if len(all) <= few+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}
