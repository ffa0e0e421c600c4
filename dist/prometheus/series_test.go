package prometheus

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"
)

// A sample is one line of /metrics.
type sample struct {
	labels labels.Labels
	value  float64
	rises  bool // a counter, or a part of a histogram
}

// A world is a Prometheus that has scraped two nodes, each of which serves the series of the daemon's own tests.
type world struct {
	samples []sample
	db      *tsdb.DB
	engine  *promql.Engine
	answers map[string]answer // by expression
}

// An answer is the result of a query: the labels of its series.
type answer struct {
	series []labels.Labels
	err    error
}

// now is the time of the last scrape: after the times that are values of the series.
var now = time.Unix(1_700_010_000, 0)

const (
	scrapes  = 60
	interval = time.Minute
)

func newWorld(t *testing.T) *world {
	t.Helper()
	text, err := os.ReadFile("../../network/node/api/testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{answers: map[string]answer{}, samples: append(parse(t, text), ofTheProcess(t)...)}
	w.samples = append(w.samples, sample{labels: labels.FromStrings(labels.MetricName, "up"), value: 1})
	options := tsdb.DefaultOptions()
	options.RetentionDuration = 0
	if w.db, err = tsdb.Open(t.TempDir(), nil, nil, options, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.engine = promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	for i := range scrapes {
		w.scrape(t, i)
	}
	return w
}

func (w *world) scrape(t *testing.T, i int) {
	t.Helper()
	app := w.db.Appender(t.Context())
	at := now.Add(time.Duration(i+1-scrapes) * interval)
	for _, s := range w.samples {
		value := s.value
		if s.rises {
			value *= float64(i)
		}
		for _, node := range []string{"a", "b"} {
			l := labels.NewBuilder(s.labels).Set("job", "selvage").Set("instance", node).Labels()
			if _, err := app.Append(0, l, at.UnixMilli(), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// parse reads the text format of /metrics.
func parse(t *testing.T, text []byte) (all []sample) {
	t.Helper()
	types := map[string]string{}
	p := textparse.NewPromParser(text, labels.NewSymbolTable(), false)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch entry {
		case textparse.EntryType:
			name, typ := p.Type()
			types[string(name)] = string(typ)
		case textparse.EntrySeries:
			s := sample{}
			_, _, s.value = p.Series()
			p.Labels(&s.labels)
			name := s.labels.Get(labels.MetricName)
			s.rises = types[name] == "counter" || types[histogram(name)] == "histogram"
			all = append(all, s)
		}
	}
}

// histogram is the name of the histogram that a series is a part of, if it is one.
func histogram(series string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if name, ok := strings.CutSuffix(series, suffix); ok {
			return name
		}
	}
	return ""
}

// ofTheProcess returns the metrics of the Go runtime and of the process that have no labels. The daemon serves those of
// the same collectors.
func ofTheProcess(t *testing.T) (all []sample) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		if len(m.GetLabel()) > 0 || m.GetGauge() == nil && m.GetCounter() == nil {
			continue
		}
		all = append(all, sample{
			labels: labels.FromStrings(labels.MetricName, f.GetName()),
			value:  m.GetGauge().GetValue() + m.GetCounter().GetValue(), rises: m.GetCounter() != nil,
		})
	}
	return all
}

// has reports whether a metric has a label, with a value or, if that is empty, with any. Each has job and instance.
func (w *world) has(metric, label, value string) bool {
	if label == "job" || label == "instance" {
		return w.known(metric)
	}
	for _, s := range w.samples {
		if s.labels.Get(labels.MetricName) == metric && s.labels.Has(label) && (value == "" || s.labels.Get(label) == value) {
			return true
		}
	}
	return false
}

func (w *world) known(metric string) bool {
	for _, s := range w.samples {
		if s.labels.Get(labels.MetricName) == metric {
			return true
		}
	}
	return false
}

// query evaluates an expression over the last quarter of an hour.
func (w *world) query(ctx context.Context, expr string) answer {
	if a, known := w.answers[expr]; known {
		return a
	}
	a := answer{}
	q, err := w.engine.NewRangeQuery(ctx, w.db, nil, expr, now.Add(-15*time.Minute), now, interval)
	if err != nil {
		return answer{err: err}
	}
	defer q.Close()
	m, err := q.Exec(ctx).Matrix()
	a.err = err
	for _, series := range m {
		a.series = append(a.series, series.Metric)
	}
	w.answers[expr] = a
	return a
}
