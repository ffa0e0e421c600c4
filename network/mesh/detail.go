package mesh

import (
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// DetailPath is where a node serves its [Detail].
const DetailPath = "/v1/detail"

// DetailVersion is the version of [Detail]. Within a version, fields may be added; existing fields keep their names and
// meanings.
const DetailVersion = 1

// MaxDetail limits the size of a detail, in bytes.
const MaxDetail = 256 << 10

// MaxDetailed is how many drops a detail lists. Repairs are as many as the daemon keeps.
const MaxDetailed = 32

// Detail is what a node reports about itself to those who ask about it alone. Unlike a [Summary], it has names of pods,
// keys of kernel entries, and texts.
type Detail struct {
	Version int             `json:"version"` // DetailVersion
	Now     time.Time       `json:"now"`     // the node's clock; the other times are by it too
	Repairs []status.Repair `json:"repairs"` // the newest first
	// Drops are the latest packets that policies denied, as far as they were reported, the newest first.
	Drops    []status.Drop `json:"drops"`
	DropsOff status.Reason `json:"drops_off,omitempty"` // why there are none: the node enforces no policies
	// Examination is the latest one; nil: there is none yet, and ExaminationOff says so if there will be none.
	Examination    *Examination  `json:"examination,omitempty"`
	Examining      bool          `json:"examining,omitempty"` // the node examines itself now
	ExaminationOff status.Reason `json:"examination_off,omitempty"`
}

// NotEnforced is the code for a node that enforces no network policies.
const NotEnforced status.Reason = "not-enforced"

// NoSocket is the code for a node whose daemon has no socket, which doctor needs.
const NoSocket status.Reason = "no-socket"

// Examination is what selvaged doctor finds on a node, without probes of other nodes.
type Examination struct {
	At       time.Time     `json:"at"`
	Passed   int           `json:"passed"`   // checks that found nothing
	Findings []Examined    `json:"findings"` // the worst first
	Error    string        `json:"error,omitempty"`
	Took     time.Duration `json:"took_ns"`
}

// Examined is one finding of doctor.
type Examined struct {
	Check    string `json:"check"`
	Level    string `json:"level"` // warning or failure
	Evidence string `json:"evidence"`
	Advice   string `json:"advice,omitempty"`
}

// Limits of what is taken from a detail, in runes.
const (
	maxKey      = 256
	maxEvidence = 1000
)

// Clean bounds what another node has sent, and leaves nothing in it that a terminal would act on.
func (d *Detail) Clean() {
	d.DropsOff = status.Reason(printable(string(d.DropsOff)))
	d.ExaminationOff = status.Reason(printable(string(d.ExaminationOff)))
	d.Repairs = d.Repairs[:min(len(d.Repairs), maxList)]
	for i := range d.Repairs {
		r := &d.Repairs[i]
		r.Kind, r.What = printable(r.Kind), printable(r.What)
		r.Key, r.By = Printable(r.Key, maxKey), Printable(r.By, maxKey)
	}
	d.Drops = d.Drops[:min(len(d.Drops), MaxDetailed)]
	for i := range d.Drops {
		x := &d.Drops[i]
		x.Direction, x.Cause, x.Protocol = printable(x.Direction), printable(x.Cause), printable(x.Protocol)
		x.Policy = Printable(x.Policy, maxKey)
		x.Isolated = x.Isolated[:min(len(x.Isolated), maxList)]
		for j := range x.Isolated {
			x.Isolated[j] = Printable(x.Isolated[j], maxKey)
		}
		for _, end := range []*status.PolicyEnd{&x.Source, &x.Destination} {
			end.Pod, end.Node = Printable(end.Pod, 2*maxKey), Printable(end.Node, maxKey)
		}
	}
	if e := d.Examination; e != nil {
		e.Error = Printable(e.Error, maxEvidence)
		e.Findings = e.Findings[:min(len(e.Findings), maxList)]
		for i := range e.Findings {
			f := &e.Findings[i]
			f.Check, f.Level = printable(f.Check), printable(f.Level)
			f.Evidence, f.Advice = Printable(f.Evidence, maxEvidence), Printable(f.Advice, maxEvidence)
		}
	}
}

// Told is a node's detail, or why there is none.
type Told struct {
	Detail *Detail       `json:"detail,omitempty"`
	Code   status.Reason `json:"code,omitempty"`
	Text   string        `json:"text,omitempty"`
}

// Reasons why a node tells no detail, beside those why it gives no summary.
const (
	NoDetail  status.Reason = "no-detail"  // its daemon is older than the asking side
	DetailOff status.Reason = "detail-off" // its daemon runs with --mesh-detail=false
	NoNode    status.Reason = "no-node"    // there is no node with that lease any more
)

// Untold says why a node has told no detail.
func Untold(a Answer) Told {
	t := Told{Code: a.Code}
	switch a.Code {
	case NoDetail:
		t.Text = "its daemon is older than this page, and tells no detail"
	case DetailOff:
		t.Text = "its daemon tells no detail: it runs with --mesh-detail=false"
	case NoNode:
		t.Text = "it has no lease any more"
	default:
		t.Text = missingText(a)
	}
	return t
}
