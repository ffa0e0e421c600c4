package chaosstore

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report prints outcomes and keeps what the summary needs.
type Report struct {
	w    io.Writer
	Logs bool // print what the daemons said even if all is well

	scene               string
	faults, wrong, late int
	sent, lost          int
	slowest             time.Duration
}

// NewReport returns a report that prints to w.
func NewReport(w io.Writer) *Report { return &Report{w: w} }

// Line prints an outcome and counts it.
func (r *Report) Line(o Outcome) {
	if scene := o.Scene.String(); scene != r.scene {
		r.scene = scene
		fmt.Fprintf(r.w, "\netcd of %s\n", scene)
	}
	verdict := "ok"
	switch {
	case !o.OK():
		verdict = "FAIL"
		r.wrong++
	case o.Late():
		verdict = fmt.Sprintf("FAIL later than %s", o.Fault.within())
		r.late++
	}
	r.faults++
	r.sent, r.lost, r.slowest = r.sent+o.Traffic.Sent, r.lost+o.Traffic.Lost, max(r.slowest, o.Converged)
	fmt.Fprintf(r.w, "  %-55s lost %d of %5d, right after %6.2fs, requests %s  %s\n",
		o.Fault.Name, o.Traffic.Lost, o.Traffic.Sent, o.Converged.Seconds(), o.Requests, verdict)
	for _, line := range slices.Concat(o.Wrong, o.Remarks) {
		fmt.Fprintf(r.w, "      %s\n", strings.ReplaceAll(line, "\n", "\n      "))
	}
	if r.Logs || verdict != "ok" {
		for _, line := range o.Log {
			fmt.Fprintf(r.w, "      log of %s\n", line)
		}
	}
}

// Summary prints a line of all and reports whether all is well.
func (r *Report) Summary() bool {
	fmt.Fprintf(r.w, "\n%d faults; %d datagrams sent, %d lost; repaired after at most %s\n",
		r.faults, r.sent, r.lost, r.slowest.Round(10*time.Millisecond))
	if r.wrong+r.late > 0 {
		fmt.Fprintf(r.w, "FAIL: %d not as it should be, %d too late\n", r.wrong, r.late)
		return false
	}
	fmt.Fprintln(r.w, "ok")
	return true
}
