package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
)

// diagnosis is what is wrong with one path. Peers of whom the same is to be said are said it of together, so text and advice
// name no peer: THEM stands for it.
type diagnosis struct {
	level        Level
	text, advice string
}

const them = "THEM"

// checkPeers says which peers are not reached, and why.
func checkPeers(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	all = unprogrammed(f.Peers)
	if f.ProbeErr != nil {
		all = append(all, warning("run it as root, with CAP_NET_RAW", "no peer was probed: %v", f.ProbeErr))
	}
	who, order := map[diagnosis][]string{}, []diagnosis{}
	var reached, notes int
	var slowest time.Duration
	for _, p := range f.Paths {
		if !p.Probed {
			continue
		}
		d := f.diagnose(p)
		if d.level == Pass {
			reached++
			slowest = max(slowest, p.Overlay.RTT)
			if d.text == "" {
				continue
			}
			notes++
		}
		if len(who[d]) == 0 {
			order = append(order, d)
		}
		who[d] = append(who[d], label(p))
	}
	if probed := slices.IndexFunc(f.Paths, func(p probe.Path) bool { return !p.Probed }); probed >= 0 {
		all = append(all, warning("give it more: --timeout 2m; or ask of fewer", "there was no time to probe %d of %d ways to other nodes", unprobed(f.Paths), len(f.Paths)))
	}
	for _, d := range order {
		names := some(who[d])
		all = append(all, Finding{Level: d.level, Evidence: strings.ReplaceAll(d.text, them, names), Advice: strings.ReplaceAll(d.advice, them, names)})
	}
	if reached > notes {
		all = append(all, passed("%d of %d ways to other nodes that were probed carry packets of all sizes, the slowest in %s",
			reached, len(f.Paths)-unprobed(f.Paths), slowest.Round(10*time.Microsecond)))
	}
	return all
}

func unprobed(paths []probe.Path) (n int) {
	for _, p := range paths {
		if !p.Probed {
			n++
		}
	}
	return n
}

// label names a peer: "node2 (172.31.0.12)".
func label(p probe.Path) string {
	return fmt.Sprintf("%s (%s)", cmp.Or(p.Node, p.Key), p.Target.Underlay)
}

// unprogrammed names peers whose entries are not in the kernel, or whose lease is gone.
func unprogrammed(peers []status.Peer) (all []Finding) {
	by, order := map[string][]string{}, []string{}
	var graced []string
	for _, p := range peers {
		switch p.State {
		case status.Pending:
			if len(by[p.Why]) == 0 {
				order = append(order, p.Why)
			}
			by[p.Why] = append(by[p.Why], nameOf(p))
		case status.Grace:
			graced = append(graced, nameOf(p))
		}
	}
	for _, why := range order {
		all = append(all, failure("see entries, routes and device above; selvaged explain ADDRESS follows a packet", "the kernel lacks what leads to %s: %s", some(by[why]), why))
	}
	if len(graced) > 0 {
		all = append(all, warning("if they are to come back, look at their daemons: selvaged status there", "the leases of %s are gone; they are kept for a while", some(graced)))
	}
	return all
}
