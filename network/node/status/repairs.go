package status

import "time"

// Repairs are the external changes that were repaired.
type Repairs struct {
	Total  int           `json:"total"`
	Counts []RepairCount `json:"counts,omitempty"`
	Last   []Repair      `json:"last,omitempty"` // newest first
}

// RepairCount counts the repaired entries of one kind that were missing, or changed.
type RepairCount struct {
	Kind  string `json:"kind"`
	What  string `json:"what"`
	Count int    `json:"count"`
}

// Add counts repairs.
func (r *Repairs) Add(kind, what string, count int) {
	r.Total += count
	for i := range r.Counts {
		if c := &r.Counts[i]; c.Kind == kind && c.What == what {
			c.Count += count
			return
		}
	}
	r.Counts = append(r.Counts, RepairCount{kind, what, count})
}

// Passes is a histogram of the durations of passes that brought the kernel in sync.
type Passes struct {
	Count   uint64     `json:"count"`
	Seconds float64    `json:"seconds"` // in total
	Within  [10]uint64 `json:"within"`  // number of passes within each of passBounds
}

// passBounds are the bounds of Passes.Within, in seconds.
func passBounds() [10]float64 {
	return [10]float64{0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5}
}

// Add counts one pass.
func (p *Passes) Add(took time.Duration) {
	p.Count++
	p.Seconds += took.Seconds()
	for i, bound := range passBounds() {
		if took.Seconds() <= bound {
			p.Within[i]++
		}
	}
}

// Buckets returns Within by bound, in seconds.
func (p *Passes) Buckets() map[float64]uint64 {
	b := make(map[float64]uint64, len(p.Within))
	for i, bound := range passBounds() {
		b[bound] = p.Within[i]
	}
	return b
}

// Repair is one repaired entry.
type Repair struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Key  string    `json:"key"`
	What string    `json:"what"`         // "missing" or "changed"
	By   string    `json:"by,omitempty"` // the process that caused it, if the kernel reported it: "pid 1234 (ip)"
}
