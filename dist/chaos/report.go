package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report prints outcomes and keeps what the summary needs.
type Report struct {
	w       io.Writer
	Logs    bool // print what the daemons said even if all is well
	classes map[Class]*tally
	order   []Class
	heading string
	walked  int // faults of random walks
	wrong   int
	late    int
}

// tally is what came of the faults of one class.
type tally struct {
	took       []time.Duration // while the daemon ran
	sent, lost int
	gap        time.Duration
}

// NewReport returns a report that prints to w.
func NewReport(w io.Writer) *Report { return &Report{w: w, classes: map[Class]*tally{}} }

// Heading begins a part; it is printed if there is anything in it.
func (r *Report) Heading(format string, args ...any) {
	r.heading = fmt.Sprintf("\n"+format+"\n", args...)
}

// Line prints an outcome and counts it.
func (r *Report) Line(o Outcome) {
	r.print(o)
	c := r.classes[o.Fault.Class]
	if c == nil {
		c = &tally{}
		r.classes[o.Fault.Class] = c
		r.order = append(r.order, o.Fault.Class)
	}
	if o.Where != Stopped && o.Fault.Bound == 0 {
		c.took = append(c.took, o.Took)
	}
	if o.Traffic != nil {
		c.sent, c.lost, c.gap = c.sent+o.Traffic.Sent, c.lost+o.Traffic.Lost, max(c.gap, o.Traffic.Gap)
	}
	r.count(o, true)
}

// Brief counts the outcome of a step of a random walk. How long it took is not judged.
func (r *Report) Brief(o Outcome) {
	r.walked++
	r.print(o)
	r.count(o, false)
}

func (r *Report) count(o Outcome, timed bool) {
	if o.Wrong != nil {
		r.wrong++
	} else if timed && o.Late != nil {
		r.late++
	}
}

func (r *Report) print(o Outcome) {
	fmt.Fprint(r.w, r.heading)
	r.heading = ""
	verdict := "ok"
	if o.Wrong != nil || o.Late != nil && o.Traffic != nil {
		verdict = "FAIL " + strings.Join(o.Late, ", ")
	}
	traffic := ""
	if o.Traffic != nil {
		traffic = fmt.Sprintf("%5d sent %5d lost, gap %7s", o.Traffic.Sent, o.Traffic.Lost, short(o.Traffic.Gap))
	}
	fmt.Fprintf(r.w, "  %-66s %-9s right after %8s  %s  %s\n", o.Fault.Name, o.Where, short(o.Took), traffic, verdict)
	for _, line := range slices.Concat(o.Wrong, o.Remarks) {
		fmt.Fprintf(r.w, "      %s\n", line)
	}
	if r.Logs || verdict != "ok" {
		for _, line := range o.Log {
			fmt.Fprintf(r.w, "      log of %s\n", line)
		}
	}
}

// Rest prints what a daemon at rest did, and counts it if that was too much.
func (r *Report) Rest(rest Rest) {
	fmt.Fprint(r.w, r.heading)
	r.heading = ""
	verdict := "ok"
	if rest.Share() > maxAtRest || rest.Requests > 0 {
		verdict = "FAIL"
		r.late++
	}
	fmt.Fprintf(r.w, "  at rest: %s (at most %g %% of a core and no request)  %s\n", rest, 100*maxAtRest, verdict)
}

func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

// Summary prints a line a class and reports whether all is well.
func (r *Report) Summary() bool {
	fmt.Fprintf(r.w, "\nSummary, of what was broken while the daemon ran\n")
	for _, class := range r.order {
		c := r.classes[class]
		median, worst := class.Bound()
		m, w := quantile(c.took, 0.5), quantile(c.took, 1)
		verdict := "ok"
		if median > 0 && m > median {
			verdict = "FAIL"
			r.late++
		}
		fmt.Fprintf(r.w, "  %-8s %3d faults, right again after: median %8s%s, worst %8s%s; %d datagrams sent, %d lost, longest gap %s  %s\n",
			class, len(c.took), short(m), allowed(median), short(w), allowed(worst), c.sent, c.lost, short(c.gap), verdict)
	}
	if r.walked > 0 {
		fmt.Fprintf(r.w, "  %d random faults; after each, all pods reached each other\n", r.walked)
	}
	if r.wrong+r.late > 0 {
		fmt.Fprintf(r.w, "FAIL: %d not put right, %d too late\n", r.wrong, r.late)
		return false
	}
	fmt.Fprintf(r.w, "ok: everything was put right, and nothing of others was touched\n")
	return true
}

func allowed(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return " (at most " + d.String() + ")"
}

// quantile returns the value below which the share q of all is; 0 of none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))]
}
