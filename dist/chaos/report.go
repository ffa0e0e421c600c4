package chaos

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// Report prints outcomes and keeps what the summary needs.
type Report struct {
	w       io.Writer
	Logs    bool // print what the daemons said even if all is well
	tallies map[kind]*tally
	order   []kind
	heading string
	walked  int // faults of random walks
	wrong   int
	late    int
}

// kind is what is summed up in a line.
type kind struct {
	class  Class
	family string // "" for what is of none
}

// tally is what came of the faults of one kind.
type tally struct {
	took       []time.Duration // while the daemon ran
	sent, lost int
	gap        time.Duration
	policies   PolicyTraffic
}

func (t *tally) traffic(r lab.StreamReport) {
	t.sent, t.lost, t.gap = t.sent+r.Sent, t.lost+r.Lost, max(t.gap, r.Gap)
}

// NewReport returns a report that prints to w.
func NewReport(w io.Writer) *Report { return &Report{w: w, tallies: map[kind]*tally{}} }

// Heading begins a part; it is printed if there is anything in it.
func (r *Report) Heading(format string, args ...any) {
	r.heading = fmt.Sprintf("\n"+format+"\n", args...)
}

// Line prints an outcome and counts it, in each family that the fault was done in.
func (r *Report) Line(o Outcome) {
	r.print(o)
	if o.Fault.Families == nil || o.Fault.Class == Policies { // connections of both families are made in any case
		t := r.tally(kind{o.Fault.Class, ""})
		t.add(o, o.Took)
		for _, report := range o.Traffic {
			t.traffic(report)
		}
	} else {
		for _, f := range o.Families {
			t := r.tally(kind{o.Fault.Class, f.String()})
			t.add(o, o.By[f])
			for _, report := range o.Traffic {
				if report.Family == f {
					t.traffic(report)
				}
			}
		}
	}
	r.count(o, true)
}

func (t *tally) add(o Outcome, took time.Duration) {
	if o.Where != Stopped && o.Fault.own(o.Where) == 0 {
		t.took = append(t.took, took)
		if o.Policies != nil {
			t.policies.add(*o.Policies)
		}
	}
}

func (r *Report) tally(k kind) *tally {
	if r.tallies[k] == nil {
		r.tallies[k] = &tally{}
		r.order = append(r.order, k)
		slices.SortStableFunc(r.order, func(a, b kind) int {
			return cmp.Or(slices.Index(classes(), a.class)-slices.Index(classes(), b.class), strings.Compare(a.family, b.family))
		})
	}
	return r.tallies[k]
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
	var took, traffic strings.Builder
	if o.Fault.Families != nil {
		for _, f := range o.Families {
			fmt.Fprintf(&took, " %s %8s", f, short(o.By[f]))
		}
	} else {
		fmt.Fprintf(&took, "      %8s", short(o.Took))
	}
	for _, t := range o.Traffic {
		fmt.Fprintf(&traffic, "  %s: %d sent, %d lost, gap %s", t.Family, t.Sent, t.Lost, short(t.Gap))
	}
	if o.Policies != nil {
		fmt.Fprintf(&traffic, "  %s", o.Policies)
	}
	fmt.Fprintf(r.w, "  %-66s %-9s right after%-28s%s  %s\n", o.Fault.Name, o.Where, &took, &traffic, verdict)
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
	verdict, requests := "ok", " and no request"
	most, within := rest.bound()
	if !within {
		verdict = "FAIL"
		r.late++
	}
	if rest.FastPath {
		requests = ""
	}
	fmt.Fprintf(r.w, "  at rest: %s (at most %g %% of a core%s)  %s\n", rest, 100*most, requests, verdict)
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

// Summary prints a line for each class and family, and reports whether all is well.
func (r *Report) Summary() bool {
	fmt.Fprintf(r.w, "\nSummary, of what was broken while the daemon ran\n")
	for _, k := range r.order {
		t := r.tallies[k]
		median, worst := k.class.Bound()
		if len(t.took) == 0 {
			continue // only such as have a bound of their own
		}
		m, w := quantile(t.took, 0.5), quantile(t.took, 1)
		verdict := "ok"
		if median > 0 && m > median {
			verdict = "FAIL"
			r.late++
		}
		traffic := fmt.Sprintf("%d datagrams sent, %d lost, longest gap %s", t.sent, t.lost, short(t.gap))
		if k.class == Policies {
			traffic = t.policies.String()
		}
		fmt.Fprintf(r.w, "  %-8s %-5s%4d faults, repaired after: median %8s%s, worst %8s%s; %s  %s\n",
			k.class, k.family, len(t.took), short(m), allowed(median), short(w), allowed(worst), traffic, verdict)
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
