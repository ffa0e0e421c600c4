package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"gonum.org/v1/gonum/stat"
)

// Figure is one thing measured, and what is to be reached.
type Figure struct {
	// Name is that of a Go benchmark, without "Benchmark": "Start/leases=5000".
	Name string `json:"name"`
	// What it is, in words.
	What string `json:"what"`
	// Unit of all numbers: "ms", "MB" (1,000,000 bytes), "requests".
	Unit string `json:"unit"`
	// Value is what is judged: the median of Samples unless What says otherwise.
	Value   float64   `json:"value"`
	Samples []float64 `json:"samples,omitempty"`
	// Floor is what the same takes without selvage, in the same run; nil: there is nothing to compare with.
	Floor *Reference `json:"floor,omitempty"`
	// Veth is what a pair of virtual interfaces without anything between them does, for data paths; nil: it was not measured.
	Veth *Reference `json:"veth,omitempty"`
	// Bare is the same without even what Floor has, for connections between pods; nil: it was not measured.
	Bare *Reference `json:"bare,omitempty"`
	// Off is the same with the fast path off; nil: the figure is not of the fast path.
	Off *Reference `json:"off,omitempty"`
	// Fast is the same with the fast path on, with ratios to Floor; nil: it was not measured.
	Fast *Reference `json:"fast,omitempty"`
	// Peer is the same of another daemon, or by another's rules; nil: none was measured.
	Peer *Reference `json:"peer,omitempty"`
	// Limit is what Value may be at most; nil: the figure is only told.
	Limit *float64 `json:"limit,omitempty"`
	// LimitIs says where the limit comes from, if it is not just a number: "1.6 × the floor".
	LimitIs string `json:"limit_is,omitempty"`
	// Least is what Value has to be at least, where more is better; nil: see Limit.
	Least *float64 `json:"least,omitempty"`
	// Reached is whether the limit holds; nil for a figure that is only told.
	Reached *bool `json:"reached,omitempty"`
}

// Reference is another's figure.
type Reference struct {
	What    string    `json:"what"`
	Value   float64   `json:"value"`
	Samples []float64 `json:"samples,omitempty"`
	// Ratios are those of the figure to it, turn by turn, if the two were measured in turns.
	Ratios []float64 `json:"ratios,omitempty"`
}

// inTurns is a reference to what was measured in turns with own.
func inTurns(what string, own, samples []float64) *Reference {
	var ratios []float64
	for i := range min(len(own), len(samples)) {
		if samples[i] != 0 {
			ratios = append(ratios, own[i]/samples[i])
		}
	}
	return &Reference{What: what, Value: median(samples), Samples: samples, Ratios: ratios}
}

// String is how a reference stands in the table: "9.41 (bare underlay; 0.62 ×, 0.59 to 0.66)".
func (r *Reference) String() string {
	switch ratio := fmt.Sprintf("%.2f ×", median(r.Ratios)); len(r.Ratios) {
	case 0:
		return fmt.Sprintf("%s (%s)", number(r.Value), r.What)
	case 1:
		return fmt.Sprintf("%s (%s; %s)", number(r.Value), r.What, ratio)
	default:
		return fmt.Sprintf("%s (%s; %s, %.2f to %.2f)", number(r.Value), r.What, ratio, slices.Min(r.Ratios), slices.Max(r.Ratios))
	}
}

// Point is one size in the picture: what a start costs with so many leases.
type Point struct {
	Leases   int     `json:"leases"`
	Start    float64 `json:"start_ms"`      // until all entries are in the kernel
	Floor    float64 `json:"floor_ms"`      // by iproute2's batches, the faster of both ways
	Plain    float64 `json:"plain_ms"`      // by iproute2 without nexthop objects
	CPU      float64 `json:"cpu_ms"`        // of the daemon and what it runs
	Resident float64 `json:"rss_mb"`        // of the daemon, when all was in the kernel
	Peer     float64 `json:"peer_ms"`       // another daemon's Start; 0: not measured
	PeerRSS  float64 `json:"peer_rss_mb"`   // another daemon's Resident
	Requests float64 `json:"etcd_requests"` // that etcd counted
}

// PolicyPoint is one setting in the picture of network policies: how many TCP connections a second one CPU makes.
type PolicyPoint struct {
	Policies   int     `json:"policies"`
	Selecting  int     `json:"selecting"` // of them, the pod that is connected to
	Where      string  `json:"where"`     // the pods are: on one node, on two nodes
	Selvage    float64 `json:"selvage"`
	KubeRouter float64 `json:"kube_router"` // by rules of its layout
	None       float64 `json:"none"`        // without policies
}

// Phase is one thing that a simulated cluster went through.
type Phase struct {
	Name      string             `json:"name"`
	What      string             `json:"what"`
	Via       string             `json:"via"` // etcd or proxy
	Nodes     int                `json:"nodes"`
	Seconds   float64            `json:"seconds"` // until it was true of all nodes
	Served    map[string]float64 `json:"served"`  // requests that etcd served, by method; a stream counts once
	ServedAll float64            `json:"served_all"`
	Asked     uint64             `json:"asked"`    // requests by nodes
	Messages  uint64             `json:"messages"` // answers and events, to nodes
	Received  float64            `json:"received_mb"`
	Sent      float64            `json:"sent_mb"`
	EtcdCPU   float64            `json:"etcd_cpu_s"`
	EtcdPeak  float64            `json:"etcd_peak_mb"`
	EtcdRest  float64            `json:"etcd_rss_mb"`
	ProxyCPU  float64            `json:"proxy_cpu_s,omitempty"`
	ProxyPeak float64            `json:"proxy_peak_mb,omitempty"`
	BenchCPU  float64            `json:"simulation_cpu_s"`
}

// Report is all that a run came to.
type Report struct {
	Machine Machine   `json:"machine"`
	Figures []*Figure `json:"figures,omitempty"`
	Points  []Point   `json:"points,omitempty"`
	Phases  []Phase   `json:"phases,omitempty"`
	// Policies are the points of another picture.
	Policies []PolicyPoint `json:"policies,omitempty"`
	Series   []*Series     `json:"series,omitempty"`
	Notes    []string      `json:"notes,omitempty"`
}

// add takes in a figure of selvaged's and judges it.
func (r *Report) add(f Figure) {
	if len(f.Samples) > 0 && f.Value == 0 {
		f.Value = median(f.Samples)
	}
	if f.Limit != nil {
		reached := f.Value <= *f.Limit
		f.Reached = &reached
	}
	if f.Least != nil {
		reached := f.Value >= *f.Least
		f.Reached = &reached
	}
	r.Figures = append(r.Figures, &f)
}

// peer notes another daemon's figure beside selvaged's of the same name.
func (r *Report) peer(name, program string, samples []float64, value float64) {
	if value == 0 {
		value = median(samples)
	}
	for _, f := range r.Figures {
		if f.Name == name {
			f.Peer = &Reference{What: program, Value: value, Samples: samples}
		}
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Reached reports whether all limits hold, and whatever is to be flat is.
func (r *Report) Reached() bool {
	return !slices.ContainsFunc(r.Figures, func(f *Figure) bool { return f.Reached != nil && !*f.Reached }) &&
		!slices.ContainsFunc(r.Series, (*Series).grows)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s\n", r.Machine)
	var aligned bytes.Buffer
	t := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	if len(r.Figures) > 0 {
		fmt.Fprintln(t, "\nwhat\tmeasured\tfloor\ttarget\tmet\tpeer")
	}
	for _, f := range r.Figures {
		fmt.Fprintln(t, f.row())
	}
	if len(r.Points) > 0 {
		fmt.Fprintln(t, "\nleases\tstart, ms\tiproute2, ms\twith plain routes\tCPU, ms\tmemory, MB\tetcd requests\tpeer, ms\tpeer, MB")
	}
	for _, p := range r.Points {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Leases, number(p.Start), number(p.Floor), number(p.Plain), number(p.CPU),
			number(p.Resident), number(p.Requests), orNothing(p.Peer), orNothing(p.PeerRSS))
	}
	if len(r.Phases) > 0 {
		fmt.Fprintln(t, "\nby\tnodes\t\ttime, s\tetcd requests\tmessages to nodes\tto nodes, MB\tfrom, MB\tetcd CPU, s\tetcd peak, MB\tproxy CPU, s\tproxy peak, MB\tsimulation CPU, s")
	}
	for _, p := range r.Phases {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Via, p.Nodes, p.What, number(p.Seconds), number(p.ServedAll), p.Messages,
			number(p.Received), number(p.Sent), number(p.EtcdCPU), number(p.EtcdPeak), orNothing(p.ProxyCPU), orNothing(p.ProxyPeak), number(p.BenchCPU))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeSeries(&aligned, r.Series)
	for line := range strings.Lines(aligned.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	for _, p := range r.Phases {
		fmt.Fprintf(w, "%d %s, by %s: etcd served %v\n", p.Nodes, p.What, p.Via, p.Served)
	}
	return nil
}

// row is a figure's line of the table.
func (f *Figure) row() string {
	limit, reached, floor, peer := "", "", "", ""
	if f.Reached != nil {
		if limit, reached = "", "yes"; f.Limit != nil {
			limit = "≤ " + number(*f.Limit)
		} else {
			limit = "≥ " + number(*f.Least)
		}
		if f.LimitIs != "" {
			limit += " (" + f.LimitIs + ")"
		}
		if !*f.Reached {
			reached = "NO"
		}
	}
	if f.Floor != nil {
		floor = f.Floor.String()
	}
	if f.Veth != nil {
		floor += ", " + f.Veth.String()
	}
	if f.Bare != nil {
		floor += ", " + f.Bare.String()
	}
	if f.Off != nil {
		floor = f.Off.String()
	}
	if f.Fast != nil {
		floor += ", " + f.Fast.String()
	}
	if f.Peer != nil {
		peer = number(f.Peer.Value)
		if len(f.Peer.Ratios) > 0 {
			peer = f.Peer.String()
		}
	}
	return fmt.Sprintf("%s\t%s %s\t%s\t%s\t%s\t%s", f.What, number(f.Value), f.Unit, floor, limit, reached, peer)
}

func orNothing(v float64) string {
	if v == 0 {
		return ""
	}
	return number(v)
}

// atMost is for [Figure.Limit].
func atMost(v float64) *float64 { return &v }

// number is short and still says enough.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return fmt.Sprintf("%d", int64(v))
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Benchmarks writes the report as go test -bench does, a line a sample, for benchstat.
func (r *Report) Benchmarks(w io.Writer) error {
	out := benchfmt.NewWriter(w)
	var err error
	write := func(name string, values ...benchfmt.Value) {
		err = errors.Join(err, out.Write(&benchfmt.Result{
			Config: []benchfmt.Config{
				{Key: "goos", Value: []byte("linux"), File: true},
				{Key: "cpu", Value: []byte(r.Machine.CPU), File: true},
				{Key: "kernel", Value: []byte(r.Machine.Kernel), File: true},
			},
			Name: benchfmt.Name(name), Iters: 1, Values: values,
		}))
	}
	for _, f := range r.Figures {
		each := func(of string, samples []float64, value float64) {
			for _, v := range orValue(samples, value) {
				write(f.Name+"/of="+of, benchfmt.Value{Value: v, Unit: f.Unit})
			}
		}
		each("selvage", f.Samples, f.Value)
		if f.Floor != nil {
			each("floor", f.Floor.Samples, f.Floor.Value)
		}
		if f.Veth != nil {
			each("veth", f.Veth.Samples, f.Veth.Value)
		}
		if f.Bare != nil {
			each("bare", f.Bare.Samples, f.Bare.Value)
		}
		if f.Off != nil {
			each("off", f.Off.Samples, f.Off.Value)
		}
		if f.Fast != nil {
			each("fast", f.Fast.Samples, f.Fast.Value)
		}
		if f.Peer != nil {
			each("peer", f.Peer.Samples, f.Peer.Value)
		}
	}
	for _, p := range r.Phases {
		write(fmt.Sprintf("Cluster/phase=%s/via=%s/nodes=%d", p.Name, p.Via, p.Nodes),
			benchfmt.Value{Value: p.Seconds, Unit: "s"}, benchfmt.Value{Value: p.ServedAll, Unit: "requests"},
			benchfmt.Value{Value: p.Received, Unit: "MB-received"}, benchfmt.Value{Value: p.EtcdCPU, Unit: "etcd-cpu-s"},
			benchfmt.Value{Value: p.EtcdPeak, Unit: "etcd-MB"})
	}
	for _, s := range r.Series {
		for _, v := range s.Samples {
			write(strings.ReplaceAll(s.Name, " ", "-"), benchfmt.Value{Value: v, Unit: cmp.Or(s.Unit, "n")})
		}
	}
	return err
}

func orValue(samples []float64, value float64) []float64 {
	if len(samples) == 0 {
		return []float64{value}
	}
	return samples
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func median(samples []float64) float64 { return quantile(0.5, samples) }

func quantile(p float64, samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return stat.Quantile(p, stat.Empirical, sorted, nil)
}
