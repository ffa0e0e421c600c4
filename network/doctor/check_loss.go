package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// probedPath identifies a peer in a family, as the status names both.
type probedPath struct{ family, key string }

// lossPlace is where packets of a path are lost.
type lossPlace int

const (
	lostOnUnderlay lossPlace = iota
	lostInOverlay            // and not on the underlay
	lostSometimes            // hardly any is lost while doctor measures
	lostSomewhere            // it was not measured, or not on the underlay
)

// Of the echo requests of a measurement, these many are more than chance: where the loss is as large in the overlay as
// on the underlay, fewer than 1 of 100 measurements take it for one of the overlay alone.
const (
	lossOfUnderlay = 2
	lossOfOverlay  = 5 // and none on the underlay
)

// placeOf decides where packets are lost.
func placeOf(l probe.Losses) lossPlace {
	switch under, over := l.Underlay, l.Overlay; {
	case under.Sent == 0 || under.Lost == under.Sent: // an underlay without an answer filters echo requests
		return lostSomewhere
	case under.Lost >= lossOfUnderlay:
		return lostOnUnderlay
	case under.Lost == 0 && over.Lost >= lossOfOverlay:
		return lostInOverlay
	}
	return lostSometimes
}

// lossy returns the peers of which the daemon's probes are lost again and again.
func (f Facts) lossy() map[probedPath]status.ProbedPeer {
	all := map[probedPath]status.ProbedPeer{}
	if f.Status == nil {
		return all
	}
	for _, probes := range f.Status.Probes {
		for _, p := range probes.Peers {
			if p.Lossy {
				all[probedPath{probes.Family, p.Key}] = p
			}
		}
	}
	return all
}

// measureLoss measures the paths on which the daemon's probes are lost, as far as they answer at all.
func (f *Facts) measureLoss(ctx context.Context, p *probe.Prober, o Options) {
	lossy := f.lossy()
	var targets []probe.Target
	for _, path := range f.Paths {
		if _, is := lossy[probedPath{path.Family.String(), path.Key}]; is && path.Probed && path.Works() {
			targets = append(targets, path.Target)
		}
	}
	if len(targets) == 0 {
		return
	}
	o.Progress("measuring the loss on the paths to other nodes", 0, 0)
	f.Losses = map[probedPath]probe.Losses{}
	for i, l := range p.MeasureLoss(ctx, targets) {
		f.Losses[probedPath{targets[i].Family.String(), targets[i].Key}] = l
	}
}

// losses reports peers that answer, but not all probes, and where the packets are lost.
func (f Facts) losses() (all []Finding) {
	for _, probes := range f.Status.Probes {
		var texts [lostSomewhere + 1][]string
		for _, p := range probes.Peers {
			if !p.Lossy {
				continue
			}
			l := f.Losses[probedPath{probes.Family, p.Key}]
			at := placeOf(l)
			texts[at] = append(texts[at], f.peerText(p.Key, probes.Family)+": "+lossText(p, l))
		}
		for at, peers := range texts {
			if len(peers) > 0 {
				slices.Sort(peers)
				what, advice := f.lossWords(lossPlace(at))
				all = append(all, warning(advice, "packets of %d of %d probed nodes over %s are lost%s: %s",
					len(peers), len(probes.Peers), probes.Family, what, abbreviate(peers)))
			}
		}
	}
	return all
}

// lossWords returns where packets are lost, for people, and what to do.
func (f Facts) lossWords(at lossPlace) (what, advice string) {
	link := "the uplink"
	if u := f.Status.Uplink; u != nil {
		link = u.Name
	}
	const counters = "look for errors and drops on both nodes: ip -s -s link show "
	switch at {
	case lostOnUnderlay:
		return " on the underlay", counters + link + "; and between them: cables, switches, limits of the rate"
	case lostInOverlay:
		devices := "the overlay's devices"
		if all := f.devices(); len(all) > 0 {
			devices = all[0].Name
		}
		return " in the overlay, and not on the underlay", counters + devices +
			"; rules of the packet filter that limit a rate; a full table of connections, which the kernel logs (dmesg)"
	case lostSometimes:
		return ", though hardly any now", "run it again while packets are lost, or " + counters + link
	}
	return "", counters + link + "; ping the node's public IP to see whether the underlay loses packets"
}

// lossText has the figures of a peer.
func lossText(p status.ProbedPeer, l probe.Losses) string {
	percent := 100 * float64(p.Lost) / float64(max(p.Recent, 1))
	text := fmt.Sprintf("%d of the latest %d probes (%.0f %%)", p.Lost, p.Recent, percent)
	for _, x := range []struct {
		probe.Loss
		where string
	}{{l.Underlay, "on the underlay"}, {l.Overlay, "in the overlay"}} {
		if x.Sent > 0 {
			text += fmt.Sprintf(", now %d of %d %s", x.Lost, x.Sent, x.where)
		}
	}
	return text + fmt.Sprintf(", round trips of %s", max(p.RTT, l.Overlay.MaxRTT).Round(100*time.Microsecond))
}

// peerText names a peer with its public IP in a family.
func (f Facts) peerText(key, family string) string {
	for _, p := range f.Peers {
		if p.Key != key {
			continue
		}
		for i, s := range p.Subnets {
			if i < len(p.PublicIP) && subnet.FamilyOf(s.Addr()).String() == family {
				return fmt.Sprintf("%s (%s)", nameOf(p), p.PublicIP[i])
			}
		}
	}
	return key
}
