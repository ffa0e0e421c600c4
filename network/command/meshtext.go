package command

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// showMesh writes the view of the cluster: a few lines about all nodes, then a table. What is odd is the last column,
// since it can be long.
func showMesh(w io.Writer, st style, c mesh.Cluster) {
	fmt.Fprintf(w, "%d nodes: %s\n", c.Counts.Nodes, meshCounts(st, c.Counts))
	line := func(label, text string) {
		const width = 10
		fmt.Fprintln(w, st.fold(fmt.Sprintf("%-*s%s", width, label, text), width))
	}
	if len(c.Configs) > 0 {
		text := tallied(c.Configs)
		if len(c.Networks) > 0 {
			text = strings.Join(c.Networks, ", ") + ", config " + text
		}
		line("config", text)
	}
	refuses := func(n mesh.Node) bool { return n.Summary != nil && n.Summary.ConfigRejected }
	for _, l := range []struct {
		label string
		is    func(mesh.Node) bool
	}{
		{"refused", refuses}, {"missing", func(n mesh.Node) bool { return n.Summary == nil }},
	} {
		if names := namesOf(c.Nodes, l.is); len(names) > 0 {
			line(l.label, st.bad(strings.Join(names, ", ")))
		}
	}
	if len(c.Versions) > 0 {
		line("versions", tallied(c.Versions))
	}
	text := meshTable(st, c.Nodes)
	header, _, _ := strings.Cut(text, "ODD")
	notes := columns(header)
	for row := range strings.Lines(text) {
		fmt.Fprintln(w, st.fold(strings.TrimRight(row, " \n"), notes))
	}
}

// meshCounts returns "3 ready, 1 degraded, 1 missing".
func meshCounts(st style, c mesh.Counts) string {
	var all []string
	for _, x := range []struct {
		n    int
		what string
		in   func(string) string
	}{
		{c.Ready, "ready", st.good}, {c.Degraded, "degraded", st.bad}, {c.Starting, "starting", st.odd},
		{c.Missing, "missing", st.bad},
	} {
		if x.n > 0 {
			all = append(all, x.in(fmt.Sprintf("%d %s", x.n, x.what)))
		}
	}
	return strings.Join(all, ", ")
}

// tallied returns "v1.2.3 on 3 nodes, v1.2.2 on 1".
func tallied(all []mesh.Tally) string {
	var texts []string
	for i, t := range all {
		text := fmt.Sprintf("%s on %d", t.Value, t.Nodes)
		switch {
		case i == 0 && t.Nodes == 1:
			text += " node"
		case i == 0:
			text += " nodes"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// namesOf returns the names of some nodes.
func namesOf(nodes []mesh.Node, is func(mesh.Node) bool) (names []string) {
	for _, n := range nodes {
		if is(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

func meshTable(st style, nodes []mesh.Node) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "NODE\t%s\tVERSION\tBACKEND\tENCRYPTED\tFAST PATH\t%s\tREPAIRS\tDROPS\tODD\n",
		st.plain("STATE"), st.plain("UNREACHABLE"))
	for _, n := range nodes {
		var odd []string
		for _, f := range n.Findings {
			odd = append(odd, fmt.Sprint(f.Text))
		}
		cells := append(append([]string{n.Name}, summaryCells(st, n)...), cmp.Or(strings.Join(odd, "; "), "-"))
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush() // to memory
	return b.String()
}

// summaryCells returns the columns between a node's name and what is odd.
func summaryCells(st style, n mesh.Node) []string {
	s := n.Summary
	if s == nil {
		return []string{st.bad("missing"), "-", "-", "-", "-", st.plain("-"), "-", "-"}
	}
	state := string(s.State)
	switch s.State {
	case status.Ready:
		state = st.good(state)
	case status.Degraded:
		state = st.bad(state)
	default:
		state = st.odd(state)
	}
	fast := "off"
	switch {
	case s.FastPath != nil && s.FastPath.InUse:
		fast = "in use"
	case s.FastPath != nil:
		fast = "not in use"
	}
	encryption := "-"
	if s.Backend != "" {
		encryption = s.Encryption()
	}
	return []string{
		state, s.Selvaged, cmp.Or(s.Backend, "-"), encryption, fast, unreachableText(st, s.Probes),
		strconv.FormatUint(s.Repairs.Lately, 10), strconv.FormatUint(s.Drops.Lately, 10),
	}
}

// unreachableText returns how many of the probed peers are unreachable, in the family in which most are: "1 of 4".
func unreachableText(st style, probes []mesh.Probes) string {
	if len(probes) == 0 {
		return st.plain("-")
	}
	worst := slices.MaxFunc(probes, func(a, b mesh.Probes) int {
		return cmp.Compare(len(a.Unreachable()), len(b.Unreachable()))
	})
	lost := len(worst.Unreachable())
	probed := worst.Reachable() + lost
	switch {
	case probed == 0:
		return st.plain("-")
	case lost == 0:
		return st.plain(fmt.Sprintf("0 of %d", probed))
	}
	return st.bad(fmt.Sprintf("%d of %d", lost, probed))
}
