package mesh

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Window is how far back "lately" reaches.
const Window = 10 * time.Minute

// maxDrops is how many policies a summary lists.
const maxDrops = 16

// sampleEvery is the least time between two samples of a [History].
const sampleEvery = time.Minute

// History has the counters of a node over the last [Window]. The zero value is that of a daemon that starts.
type History struct{ samples []sample }

type sample struct {
	at             time.Time
	repairs, drops uint64
	dropsBy        []PolicyDrops // since the start
}

// Add sets what of a summary's counters happened within the window, and records the totals. The window ends now and
// begins up to a minute earlier than [Window] ago; while the daemon is younger, everything is within it.
func (h *History) Add(now time.Time, m *Summary) {
	for len(h.samples) > 1 && now.Sub(h.samples[1].at) >= Window {
		h.samples = h.samples[1:]
	}
	if n := len(h.samples); n == 0 || now.Sub(h.samples[n-1].at) >= sampleEvery {
		h.samples = append(h.samples, sample{now, m.Repairs.Total, m.Drops.Total, m.DropsBy})
	}
	var base sample
	if now.Sub(h.samples[0].at) >= Window {
		base = h.samples[0]
	}
	m.Repairs.Lately = since(base.repairs, m.Repairs.Total)
	m.Drops.Lately = since(base.drops, m.Drops.Total)
	m.DropsBy = lately(base.dropsBy, m.DropsBy)
}

// lately returns by how much the counts of drops grew, the most first.
func lately(before, total []PolicyDrops) (grown []PolicyDrops) {
	for _, d := range total {
		if i := slices.IndexFunc(before, d.same); i >= 0 {
			d.Lately = since(before[i].Lately, d.Lately)
		}
		if d.Lately > 0 {
			grown = append(grown, d)
		}
	}
	slices.SortFunc(grown, func(a, b PolicyDrops) int {
		return cmp.Or(cmp.Compare(b.Lately, a.Lately), strings.Compare(a.Policy, b.Policy),
			strings.Compare(a.Direction, b.Direction), strings.Compare(a.Cause, b.Cause))
	})
	return grown[:min(len(grown), maxDrops)]
}

// since returns by how much a counter grew; one that was reset has grown from zero.
func since(before, total uint64) uint64 {
	if total < before {
		return total
	}
	return total - before
}
