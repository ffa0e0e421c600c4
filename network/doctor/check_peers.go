package doctor

import (
	"fmt"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
)

// checkPeers reports which peers are unreachable, or lose packets, and why.
func checkPeers(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	all = f.unprogrammed()
	if f.ProbeErr != nil {
		all = append(all, warning("run it as root, with CAP_NET_RAW",
			"peers could not be probed, or not in detail: %v", f.ProbeErr))
	}
	affected, order := map[diagnosis]*affectedPeers{}, []diagnosis{}
	var working, notes int
	var slowest time.Duration
	pending := map[string]bool{} // unprogrammed reports these
	for _, p := range f.Peers {
		pending[p.Key] = p.State == status.Pending
	}
	for _, p := range f.Paths {
		if !p.Probed || f.Skipped[p.Key] || pending[p.Key] && !p.Works() {
			continue
		}
		d := f.diagnose(p)
		if d.level == Pass {
			working++
			slowest = max(slowest, p.Overlay.RTT)
			if d.text.format == "" {
				continue
			}
			notes++
		}
		if affected[d] == nil {
			order, affected[d] = append(order, d), &affectedPeers{addresses: map[string][]string{}}
		}
		affected[d].add(p, f.leaseOf(p))
	}
	if n := unprobed(f.Paths); n > 0 {
		all = append(all, warning("use a longer --timeout, such as 2m, or a smaller --sample",
			"no time was left to probe %d of %d paths to other nodes", n, len(f.Paths)))
	}
	if n := len(f.Skipped); n > 0 {
		all = append(all, warning("repair the other findings first; --peer examines one of them",
			"%d more nodes do not answer, and were not examined in detail", n))
	}
	for _, d := range order {
		n := affected[d]
		all = append(all, Finding{Level: d.level, Evidence: d.text.render(n), Advice: d.advice.render(n)})
	}
	all = append(all, f.losses()...)
	if working > notes {
		all = append(all, passed("%d of %d probed paths to other nodes carry packets of all sizes, the slowest in %s",
			working, len(f.Paths)-unprobed(f.Paths), slowest.Round(10*time.Microsecond)))
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

// longGrace is the remaining grace period above which a withdrawn lease is reported. It is that long only after the
// store lost its data.
const longGrace = 5 * time.Minute

// unprogrammed reports peers whose entries are not in the kernel, and peers whose leases vanished with others.
func (f Facts) unprogrammed() (all []Finding) {
	by, first, order := map[status.Reason][]string{}, map[status.Reason]status.Peer{}, []status.Reason{}
	var graced []string
	for _, p := range f.Peers {
		switch p.State {
		case status.Pending:
			if len(by[p.Code]) == 0 {
				order, first[p.Code] = append(order, p.Code), p
			}
			by[p.Code] = append(by[p.Code], nameOf(p))
		case status.Grace:
			if p.Until.Sub(f.Now) > longGrace {
				graced = append(graced, nameOf(p))
			}
		}
	}
	for _, code := range order {
		text := "kernel entries are missing for " + abbreviate(by[code])
		if f.Status.Pending() == 0 && code != status.EntryMissing { // otherwise the check of entries says why
			text += fmt.Sprintf(": %s", first[code].Why)
		}
		all = append(all, failure(
			"see entries, routes and device; selvaged explain ADDRESS follows a packet", "%s", text))
	}
	if len(graced) > 0 {
		all = append(all, warning("check their daemons, which claim the leases again: selvaged status there",
			"the leases of %s vanished from %s, which lost its data; "+
				"their entries are retained until the leases would have expired", abbreviate(graced), f.words().Name))
	}
	return all
}
