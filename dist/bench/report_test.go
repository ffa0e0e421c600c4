package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
)

func sample() *Report {
	r := &Report{Machine: Machine{CPU: "some CPU", Kernel: "6.18"}}
	r.add(Figure{Name: "Start/leases=5000", What: "a start", Unit: "ms", Samples: []float64{300, 100, 200}, Limit: atMost(200), LimitIs: "1.6 × floor",
		Floor: &Reference{What: "iproute2", Value: 125}})
	r.add(Figure{Name: "Late", What: "too late", Unit: "ms", Value: 200.5, Limit: atMost(200)})
	r.add(Figure{Name: "None", What: "none", Unit: "changes", Value: 0, Limit: atMost(0)})
	r.add(Figure{Name: "Told", What: "only told", Unit: "MB", Value: 1.25})
	r.add(Figure{Name: "Path", What: "pods", Unit: "Gbit/s", Samples: []float64{5, 8, 4}, Floor: inTurns("underlay", []float64{5, 8, 4}, []float64{10, 10, 10}),
		Veth: inTurns("veth", []float64{5, 8, 4}, []float64{20, 0})})
	r.peer("Start/leases=5000", "flanneld", []float64{4400}, 0)
	r.Points = []Point{{Leases: 100, Start: 20, Floor: 10, Plain: 12, CPU: 30}, {Leases: 5000, Start: 250, Floor: 300, Plain: 700, CPU: 400}}
	r.Phases = []Phase{{Name: "Start", What: "nodes start", Via: "proxy", Nodes: 1000, Seconds: 1.5, Served: map[string]float64{"Txn": 7}, ServedAll: 7}}
	return r
}

func TestJudge(t *testing.T) {
	r := sample()
	want := map[string]string{"Start/leases=5000": "true", "Late": "false", "None": "true", "Told": "none", "Path": "none"}
	for _, f := range r.Figures {
		got := "none"
		if f.Reached != nil {
			got = map[bool]string{true: "true", false: "false"}[*f.Reached]
		}
		if got != want[f.Name] {
			t.Errorf("%s: reached is %s, want %s", f.Name, got, want[f.Name])
		}
	}
	if v := r.Figures[0].Value; v != 200 {
		t.Errorf("the median is %g, want 200", v)
	}
	if r.Reached() {
		t.Error("all is reached, though one figure is late")
	}
	r.Figures = r.Figures[2:]
	if !r.Reached() {
		t.Error("not all is reached, though nothing is late")
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := sample().Table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a start 200 ms 125 (iproute2) ≤ 200 (1.6 × floor) yes 4400", "too late 200 ms ≤ 200 NO",
		"pods 5 Gbit/s 10 (underlay; 0.50 ×, 0.40 to 0.80), 0 (veth; 0.25 ×)", "proxy 1000 nodes start 1.50", "etcd served map[Txn:7]",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestBenchmarks reads back what is written for benchstat, by its own reader.
func TestBenchmarks(t *testing.T) {
	var out bytes.Buffer
	if err := sample().Benchmarks(&out); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for lines := benchfmt.NewReader(&out, "test"); lines.Scan(); {
		switch r := lines.Result().(type) {
		case *benchfmt.Result:
			for _, v := range r.Values {
				got[string(r.Name)+" "+v.Unit] += v.Value
			}
		case *benchfmt.SyntaxError:
			t.Error(r)
		}
	}
	for name, want := range map[string]float64{
		"Start/leases=5000/of=selvage ms": 600, "Start/leases=5000/of=floor ms": 125, "Start/leases=5000/of=peer ms": 4400, "Told/of=selvage B": 1.25e6, // as benchstat takes MB
		"Path/of=selvage Gbit/s": 17, "Path/of=floor Gbit/s": 30, "Path/of=veth Gbit/s": 20,
		"Cluster/phase=Start/via=proxy/nodes=1000 requests": 7,
	} {
		if got[name] != want {
			t.Errorf("%s: %g, want %g, in %v", name, got[name], want, got)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := sample().JSON(&out); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Figures) != 5 || back.Figures[1].Name != "Late" || *back.Figures[1].Reached || back.Points[1].Start != 250 || back.Phases[0].Served["Txn"] != 7 {
		t.Errorf("read back as %+v", back)
	}
}

// TestPicture looks that the picture is XML with all lines and no others.
func TestPicture(t *testing.T) {
	var out bytes.Buffer
	if err := sample().Picture(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"selvaged", "limit: 1.6 × iproute2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the picture", want)
		}
	}
	if strings.Contains(out.String(), "flanneld") {
		t.Error("a line for a peer that was not measured")
	}
	for d := xml.NewDecoder(&out); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
