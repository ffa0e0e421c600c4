package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// lineWidth is what output keeps to, in columns.
const lineWidth = 80

// verdict is "ok" or "FAIL", in colour on a terminal.
func verdict(w io.Writer, ok bool) string {
	text, colour := "ok", "32"
	if !ok {
		text, colour = "FAIL", "31;1"
	}
	if f, isFile := w.(*os.File); !isFile || !isTerminal(f) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// table aligns columns; rows end with a newline and have tabs between cells.
func table(w io.Writer, fill func(t io.Writer)) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fill(t)
	t.Flush()
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

// printNodes prints a line for each node, with its lease in etcd.
func printNodes(w io.Writer, l *lab.Lab, leases []subnet.Lease) {
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "NODE\tPUBLIC IP\tSUBNET\tVTEP MAC\tDAEMON")
		for _, n := range l.Nodes() {
			lease := leaseOf(n, leases)
			state := "not running"
			if n.Running() {
				state = fmt.Sprintf("pid %d", n.PID())
			}
			for _, f := range subnet.Families() {
				e := lease.Endpoints[f]
				switch {
				case lease.Has(f):
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Name(), e.PublicIP, e.Subnet, vtepMAC(e), state)
				case f == l.Families()[0] && lease == subnet.Lease{}:
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", n.Name(), n.Addr(f), "no lease", "", state)
				}
			}
		}
	})
}

// leaseOf finds a node's lease by its public address; the zero Lease if it has none.
func leaseOf(n *lab.Node, leases []subnet.Lease) subnet.Lease {
	for _, lease := range leases {
		for _, f := range subnet.Families() {
			if lease.Has(f) && lease.Endpoints[f].PublicIP == n.Addr(f) {
				return lease
			}
		}
	}
	return subnet.Lease{}
}

func vtepMAC(e subnet.Endpoint) string {
	var data struct{ VtepMAC string }
	if json.Unmarshal([]byte(e.Data), &data) != nil || data.VtepMAC == "" {
		return "-"
	}
	return data.VtepMAC
}

// printPods prints a line for each pod.
func printPods(w io.Writer, l *lab.Lab) {
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "POD\tADDRESS")
		for _, p := range l.Pods() {
			fmt.Fprintf(t, "%s\t%s\n", p.Name(), addresses(p.Endpoint))
		}
	})
}

// printResult prints a probe's result and tells whether all is well.
func printResult(w io.Writer, r lab.Result) bool {
	if r.Err != nil {
		fmt.Fprintf(w, "%-12s -> %-12s %s: %v\n", r.From, r.To, verdict(w, false), r.Err)
		return false
	}
	fmt.Fprintf(w, "%-12s -> %-12s %6s ms   source seen %-15s %s\n", r.From, r.To, milliseconds(r.RTT), r.Source, verdict(w, true))
	return true
}

// manyResults is how many results are too many to print each.
const manyResults = 40

// printResults prints the results, of many only those that are not as they should be, and tells whether all is well.
func printResults(w io.Writer, results []lab.Result) bool {
	good := 0
	for _, r := range results {
		if r.Err == nil {
			good++
		}
		if r.Err != nil || len(results) <= manyResults {
			printResult(w, r)
		}
	}
	if len(results) > manyResults {
		fmt.Fprintf(w, "%d of %d ok\n", good, len(results))
	}
	return good == len(results)
}

// printMatrix prints the results of probes between all endpoints, as a table if that fits, and tells whether all is well.
func printMatrix(w io.Writer, endpoints []*lab.Endpoint, results [][]lab.Result) bool {
	const cell = 11
	label := 0
	for _, e := range endpoints {
		label = max(label, len(e.Name()))
	}
	wide := label+cell*len(endpoints) > lineWidth
	if !wide {
		fmt.Fprintf(w, "%*s", label, "")
		for _, e := range endpoints {
			fmt.Fprintf(w, "%*s", cell, shortName(e))
		}
		fmt.Fprintln(w)
	}
	probes, good := 0, 0
	for i, from := range endpoints {
		var row strings.Builder
		for j, r := range results[i] {
			if i == j {
				fmt.Fprintf(&row, "%*s", cell, "-")
				continue
			}
			probes++
			if r.Err == nil {
				good++
				fmt.Fprintf(&row, "%*s %s", cell-3, milliseconds(r.RTT), verdict(w, true))
			} else {
				fmt.Fprintf(&row, "%*s%s", cell-4, "", verdict(w, false))
			}
		}
		if !wide {
			fmt.Fprintf(w, "%-*s%s\n", label, from.Name(), row.String())
		}
	}
	for _, row := range results {
		for _, r := range row {
			if r.Err != nil {
				printResult(w, r)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d ok\n", good, probes)
	return good == probes
}

// printMatrices prints a matrix for each of the families, and tells whether all is well. of makes that of one family.
func printMatrices(w io.Writer, families []subnet.Family, endpoints []*lab.Endpoint, of func(subnet.Family) [][]lab.Result) bool {
	ok := true
	for i, f := range families {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if len(families) > 1 {
			fmt.Fprintf(w, "%s:\n", f)
		}
		ok = printMatrix(w, endpoints, of(f)) && ok
	}
	return ok
}

// shortName is a pod's name without its node's.
func shortName(e *lab.Endpoint) string {
	return e.Name()[strings.LastIndexByte(e.Name(), '/')+1:]
}

// printEntries prints a kernel's entries and the purpose of each: beside it, or below it where the line would be too
// long.
func printEntries(w io.Writer, entries []lab.Entry) {
	const kind = 9
	text := 0
	for _, e := range entries {
		if kind+len(e.Text)+2+len(e.Meaning) <= lineWidth {
			text = max(text, len(e.Text))
		}
	}
	for _, e := range entries {
		if kind+max(text, len(e.Text))+2+len(e.Meaning) <= lineWidth {
			fmt.Fprintf(w, "%-*s%-*s  %s\n", kind, e.Kind, text, e.Text, e.Meaning)
		} else {
			fmt.Fprintf(w, "%-*s%s\n%*s# %s\n", kind, e.Kind, e.Text, kind, "", e.Meaning)
		}
	}
}
