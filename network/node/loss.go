package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/paths"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/subnet"
)

// lossProblem returns the problem that probed peers answer in a family, but not all probes.
func (n *node) lossProblem(s paths.Status, f subnet.Family) (p pathProblem, found bool) {
	return lossProblem(s.Results[f], f, func(key string) string { return n.peerName(key, f) })
}

// lossProblem is pure. name names the node with a lease.
func lossProblem(results map[string]reach.Result, f subnet.Family, name func(key string) string) (
	p pathProblem, found bool) {
	p = pathProblem{topic: topicLoss, code: status.PacketLoss, family: f, warning: true}
	var names, figures []string
	for key, r := range results {
		if !isLossy(r) {
			continue
		}
		names = append(names, name(key))
		figures = append(figures, fmt.Sprintf("%s: %d of the latest %d (%.0f %%), the latest round trip took %s",
			name(key), r.Lost, r.Recent, 100*float64(r.Lost)/float64(r.Recent), r.RTT.Round(100*time.Microsecond)))
		if p.since.IsZero() || r.LossySince.Before(p.since) {
			p.since = r.LossySince
		}
	}
	if len(names) == 0 {
		return p, false
	}
	slices.Sort(names)
	slices.Sort(figures)
	p.same = fmt.Sprint(len(results), names)
	p.text = fmt.Sprintf("probes of %d of %d nodes over %s are lost: %s; selvaged doctor finds out where",
		len(names), len(results), f, strings.Join(figures, "; "))
	return p, true
}

// isLossy reports whether a peer answers, but not all probes. One that does not answer at all is another problem.
func isLossy(r reach.Result) bool { return r.Lossy && r.State == reach.Reachable }
