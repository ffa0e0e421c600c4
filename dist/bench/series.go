package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Series is what was sampled of one thing over and over, each time in the same state: were nothing to leak, it would stay as it
// is, but for noise.
type Series struct {
	// Name is that of a Go benchmark: "Soak/of=node1/what=goroutines".
	Name string `json:"name"`
	// Of is whose it is, What is what it is.
	Of   string `json:"of"`
	What string `json:"what"`
	// Unit of all numbers: "MB" (1,000,000 bytes), "" for what is counted.
	Unit    string    `json:"unit,omitempty"`
	Samples []float64 `json:"samples"`
	// Middle and Last are the medians of the second and of the last third of the samples. The first third is for caches and
	// buffers to come to the size that they stay at.
	Middle float64 `json:"middle"`
	Last   float64 `json:"last"`
	// Bound is by how much Last may be above Middle; nil: it is only told.
	Bound *float64 `json:"bound,omitempty"`
	// Flat is whether it is not; nil for what is only told.
	Flat *bool `json:"flat,omitempty"`
	by   bound
}

// fewestSamples leave three for each third, so that a median is not the one that is out of line.
const fewestSamples = 9

// bound says by how much a series may grow.
type bound struct {
	// count is in the series' unit, share is of its median in the second third. The larger one counts.
	count, share float64
	// told: it is not judged.
	told bool
}

// judge compares the last third of the samples with the second. Medians of thirds are what a few samples out of line do not move, and
// a leak does however it goes about: a bit each round, or a lot now and then.
func (s *Series) judge(by bound) {
	n := len(s.Samples)
	s.Middle, s.Last = median(s.Samples[n/3:n-n/3]), median(s.Samples[n-n/3:])
	if by.told {
		return
	}
	most := max(by.count, by.share*s.Middle)
	flat := s.Last-s.Middle <= most
	s.Bound, s.Flat = &most, &flat
}

// grows reports whether it is judged not to be flat.
func (s *Series) grows() bool { return s.Flat != nil && !*s.Flat }

// seen is the least that would have to be added each round for the series not to be judged flat: the middles of two thirds are a
// third of the rounds apart.
func (s *Series) seen() float64 { return *s.Bound / (float64(len(s.Samples)) / 3) }

// writeSeries writes a line a series, for people.
func writeSeries(w io.Writer, all []*Series) {
	if len(all) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nof\twhat\tsamples\tfirst\tleast\tmost\tmiddle third\tlast third\tgrows by\tmay by\tflat\tseen from, a round")
	for _, s := range all {
		flat, most, seen := "", "", ""
		if s.Flat != nil {
			flat, most, seen = "yes", number(*s.Bound), number(s.seen())
			if s.grows() {
				flat = "NO"
			}
		}
		name := s.What
		if s.Unit != "" {
			name += ", " + s.Unit
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Of, name, len(s.Samples), number(s.Samples[0]),
			number(quantile(0, s.Samples)), number(quantile(1, s.Samples)), number(s.Middle), number(s.Last), number(s.Last-s.Middle), most, flat, seen)
	}
	_ = t.Flush() // into memory
}
