package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is the severity of a finding.
type Level string

// The levels.
const (
	Pass    Level = "pass"
	Warning Level = "warning" // it works, but perhaps not for long, or not for all pods
	Failure Level = "failure" // something does not work
)

func (l Level) rank() int { return slices.Index([]Level{Failure, Warning, Pass}, l) }

// Finding is one result of a check.
type Finding struct {
	Check    string `json:"check"`
	Level    Level  `json:"level"`
	Evidence string `json:"evidence"`
	Advice   string `json:"advice,omitempty"` // what to do, if possible as a command
}

// Report is the result of an examination.
type Report struct {
	Node     string    `json:"node,omitempty"`
	At       time.Time `json:"at"`
	Result   Level     `json:"result"`   // the worst level of all findings
	Peers    int       `json:"peers"`    // number of peers
	Probed   int       `json:"probed"`   // number of peers that were probed
	Findings []Finding `json:"findings"` // by level, the worst first
}

// Count returns the number of findings of a level.
func (r Report) Count(l Level) (n int) {
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// passed, warning and failure return a finding. judge adds the check's name.
func passed(format string, args ...any) Finding {
	return Finding{Level: Pass, Evidence: fmt.Sprintf(format, args...)}
}

func warning(advice, format string, args ...any) Finding {
	return Finding{Level: Warning, Evidence: fmt.Sprintf(format, args...), Advice: advice}
}

func failure(advice, format string, args ...any) Finding {
	return Finding{Level: Failure, Evidence: fmt.Sprintf(format, args...), Advice: advice}
}

// judge runs the selected checks and returns their findings, the worst first.
func judge(f Facts, selected func(check string) bool) (all []Finding) {
	f.selects = selected
	for _, c := range checks() {
		if !selected(c.name) {
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

// check examines one subject. It returns a finding in any case, unless the subject does not exist on this node.
type check struct {
	name string
	run  func(Facts) []Finding
}

func checks() []check {
	return []check{
		{daemonCheck, checkDaemon},
		{"etcd", checkEtcd},
		{"apiserver", checkAPIServer},
		{"kernel", checkKernel},
		{"forwarding", checkForwarding},
		{"router-advertisement", checkRouterAdvertisements},
		{"bridge-nf", checkBridgeFilter},
		{"filter", checkFilter},
		{policiesCheck, checkPolicies},
		{fastPathCheck, checkFastPath},
		{"device", checkDevices},
		{"entries", checkEntries},
		{"routes", checkRoutes},
		{"neighbours", checkNeighbours},
		{"subnet-file", checkSubnetFile},
		{"bridge", checkBridge},
		{"pods", checkPods},
		{"cni", checkCNI},
		{"leases", checkLeases},
		{"wireguard", checkWireGuard},
		{peersCheck, checkPeers},
	}
}

const (
	daemonCheck = "daemon" // reports the problems of the daemon that no other check covers
	peersCheck  = ProbingCheck
)

// ProbingCheck is the name of the check that probes other nodes.
const ProbingCheck = "peers"

// Checks returns the names of all checks, in the order in which they run.
func Checks() (names []string) {
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// ValidateChecks returns an error for the first name that is not the name of a check.
func ValidateChecks(names []string) error {
	all := Checks()
	for _, n := range names {
		if !slices.Contains(all, n) {
			return fmt.Errorf("no such check %q, want one or more of %s", n, strings.Join(all, ","))
		}
	}
	return nil
}

// abbreviate lists the first few names: "a, b, c and 4 more".
func abbreviate(all []string) string {
	const few = 3
	if len(all) <= few+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}
