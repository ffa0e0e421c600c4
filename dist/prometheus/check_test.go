package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxSize is how large the dashboard may be, in bytes. kubectl apply keeps a copy of the ConfigMap that holds it in an
// annotation, and all annotations of an object may have 256 KiB.
const maxSize = 200 << 10

// units are the identifiers of Grafana's units that the dashboard may use. Grafana shows an unknown one as text.
var units = []string{"short", "s", "dtdurations", "percentunit", "bytes", "Bps", "ops", "opm", "reqps", "pps"}

// dashboard is the part of Grafana's classic dashboard model that is checked.
type dashboard struct {
	ID            *int
	UID, Title    string
	SchemaVersion int
	Templating    struct{ List []variable }
	Panels        []panel
}

type variable struct {
	Name, Type string
	Datasource source
	Query      json.RawMessage
}

type source struct{ Type, UID string }

// chosenSource is the data source that the variable datasource chooses.
var chosenSource = source{"prometheus", "${datasource}"}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Properties []struct {
				ID    string
				Value any
			}
		}
	}
	Targets []target
}

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                source
}

// check returns the faults of a dashboard.
func (w *world) check(ctx context.Context, text []byte) (faults []string) {
	report := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return []string{err.Error()}
	}
	if d.UID == "" || d.Title == "" || d.ID != nil {
		report("it needs a uid and a title, and no id: that is Grafana's")
	}
	if d.SchemaVersion < 39 || d.SchemaVersion > 41 {
		report("schema version %d; Grafana 11 and 12 have 39 to 41", d.SchemaVersion)
	}
	if len(text) > maxSize {
		report("%d bytes, more than %d", len(text), maxSize)
	}
	faults = append(faults, checkVariables(d, string(text))...)
	faults = append(faults, checkGrid(d.Panels)...)
	ids := map[int]string{}
	for _, p := range d.Panels {
		if other, twice := ids[p.ID]; twice || p.ID == 0 {
			report("panel %q: its id %d is also that of %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		for _, fault := range w.checkPanel(ctx, p) {
			report("panel %q: %s", p.Title, fault)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			if v.Datasource != chosenSource {
				report("variable %q: the data source is not the variable", v.Name)
			}
			for _, fault := range w.checkValues(string(v.Query)) {
				report("variable %q: %s", v.Name, fault)
			}
		}
	}
	return faults
}

var variableUse = regexp.MustCompile(`\$\{?(\w+)`)

// checkVariables compares the variables that are used with those that are defined.
func checkVariables(d dashboard, text string) (faults []string) {
	used := map[string]bool{}
	for _, m := range variableUse.FindAllStringSubmatch(text, -1) {
		used[m[1]] = true
	}
	for _, builtin := range []string{"__rate_interval", "__all"} {
		delete(used, builtin)
	}
	for _, v := range d.Templating.List {
		if !used[v.Name] {
			faults = append(faults, fmt.Sprintf("the variable %s is not used, or defined twice", v.Name))
		}
		delete(used, v.Name)
	}
	for name := range used {
		faults = append(faults, fmt.Sprintf("the variable %s is used and not defined", name))
	}
	return faults
}

// checkGrid finds panels that do not fit into the 24 columns, and those that overlap.
func checkGrid(panels []panel) (faults []string) {
	for i, p := range panels {
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			faults = append(faults, fmt.Sprintf("panel %q is outside the grid: %+v", p.Title, g))
		}
		for _, q := range panels[:i] {
			o := q.GridPos
			if g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
				faults = append(faults, fmt.Sprintf("panels %q and %q overlap", q.Title, p.Title))
			}
		}
	}
	return faults
}

func (w *world) checkPanel(ctx context.Context, p panel) (faults []string) {
	report := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if p.Title == "" {
		report("no title")
	}
	switch p.Type {
	case "row":
		return faults
	case "stat", "timeseries", "table":
	default:
		report("the type %q is not one of Grafana's that this dashboard uses", p.Type)
	}
	if p.Description == "" {
		report("no description")
	}
	used := []string{p.FieldConfig.Defaults.Unit}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if property.ID == "unit" {
				used = append(used, fmt.Sprint(property.Value))
			}
		}
	}
	for _, unit := range used {
		if !slices.Contains(units, unit) {
			report("the unit %q is not one of %q", unit, units)
		}
	}
	if len(p.Targets) == 0 {
		report("no query")
	}
	refs := map[string]bool{}
	for _, t := range p.Targets {
		if p.Datasource != chosenSource || t.Datasource != chosenSource {
			report("the data source is not the variable")
		}
		if refs[t.RefID] || t.RefID == "" {
			report("two queries are called %q", t.RefID)
		}
		refs[t.RefID] = true
		for _, fault := range w.checkQuery(ctx, t) {
			report("%s: %s", t.Expr, fault)
		}
	}
	return faults
}

// selected are the matchers that each selector needs, so that the variables have an effect on every panel.
var selected = []string{`job=~"$job"`, `instance=~"$instance"`}

// chosen replaces the variables as Grafana does, with all jobs and all nodes chosen.
var chosen = strings.NewReplacer("$__rate_interval", "5m", "$job", "selvage", "$instance", ".+")

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

func (w *world) checkQuery(ctx context.Context, t target) (faults []string) {
	text := chosen.Replace(t.Expr)
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return []string{err.Error()}
	}
	faults = w.checkExpr(expr)
	for _, matcher := range selected {
		if strings.Count(t.Expr, matcher) != len(metricsOf(expr)) {
			faults = append(faults, "a selector is without "+matcher)
		}
	}
	answer := w.query(ctx, text)
	switch {
	case answer.err != nil:
		faults = append(faults, answer.err.Error())
	case len(answer.series) == 0:
		faults = append(faults, "no result for two nodes with every metric")
	}
	for _, m := range legendLabel.FindAllStringSubmatch(t.LegendFormat, -1) {
		if !slices.ContainsFunc(answer.series, func(l labels.Labels) bool { return l.Has(m[1]) }) {
			faults = append(faults, fmt.Sprintf("the results have no label %s for the legend", m[1]))
		}
	}
	return faults
}

// metricsOf lists the names of the metrics in an expression.
func metricsOf(expr parser.Node) (names []string) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			names = append(names, v.Name)
		}
		return nil
	})
	return names
}

// checkExpr holds the metrics and labels in an expression to those that the daemon has.
func (w *world) checkExpr(expr parser.Node) (faults []string) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		var names []string // of labels that some metric below n needs
		switch n := n.(type) {
		case *parser.VectorSelector:
			if !w.known(n.Name) {
				faults = append(faults, "there is no metric "+n.Name)
				break
			}
			for _, m := range n.LabelMatchers {
				value := ""
				if m.Type == labels.MatchEqual {
					value = m.Value
				}
				if m.Name != labels.MetricName && !w.has(n.Name, m.Name, value) {
					faults = append(faults, fmt.Sprintf("%s has no label %s", n.Name, m))
				}
			}
		case *parser.AggregateExpr:
			names = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = slices.Concat(n.VectorMatching.MatchingLabels, n.VectorMatching.Include)
			}
		}
		for _, name := range names {
			if !slices.ContainsFunc(metricsOf(n), func(metric string) bool { return w.has(metric, name, "") }) {
				faults = append(faults, fmt.Sprintf("no metric in %s has a label %s", n, name))
			}
		}
		return nil
	})
	return faults
}

var labelValues = regexp.MustCompile(`label_values\((.+), (\w+)\)`)

// checkValues checks the query of a variable.
func (w *world) checkValues(query string) []string {
	var q struct{ Query string }
	if err := json.Unmarshal([]byte(query), &q); err != nil {
		return []string{err.Error()}
	}
	m := labelValues.FindStringSubmatch(q.Query)
	if m == nil {
		return []string{"it is not label_values(metric, label): " + q.Query}
	}
	expr, err := parser.ParseExpr(chosen.Replace(m[1]))
	if err != nil {
		return []string{err.Error()}
	}
	faults := w.checkExpr(expr)
	if !slices.ContainsFunc(metricsOf(expr), func(metric string) bool { return w.has(metric, m[2], "") }) {
		faults = append(faults, "no label "+m[2])
	}
	return faults
}
