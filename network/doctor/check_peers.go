package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
)

// diagnosis is what is wrong with one path. Peers of whom the same is to be said are said it of together, so the text names no
// peer: THEM stands for it.
type diagnosis struct {
	level        Level
	text, advice string
}

const them = "THEM"

// theirSubnet stands in the same way for the subnet of the one that something is said of, or of each.
const theirSubnet = "THEIR_SUBNET"

// checkPeers says which peers are not reached, and why.
func checkPeers(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	all = f.unprogrammed()
	if f.ProbeErr != nil {
		all = append(all, warning("run it as root, with CAP_NET_RAW", "peers could not be probed, or not closely: %v", f.ProbeErr))
	}
	who, order := map[diagnosis]*names{}, []diagnosis{}
	var reached, notes int
	var slowest time.Duration
	pending := map[string]bool{} // of whom all is said
	for _, p := range f.Peers {
		pending[p.Key] = p.State == status.Pending
	}
	for _, p := range f.Paths {
		if !p.Probed || f.Skipped[p.Key] || pending[p.Key] && !p.Works() {
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
		if who[d] == nil {
			order, who[d] = append(order, d), &names{addresses: map[string][]string{}}
		}
		who[d].add(p, f.leaseOf(p))
	}
	if unprobed(f.Paths) > 0 {
		all = append(all, warning("give it more: --timeout 2m; or ask of fewer", "there was no time to probe %d of %d ways to other nodes", unprobed(f.Paths), len(f.Paths)))
	}
	if n := len(f.Skipped); n > 0 {
		all = append(all, warning("cure what is found of the others first; --peer looks at one of them", "%d more nodes do not answer, and were not looked at closer", n))
	}
	for _, d := range order {
		advice := strings.ReplaceAll(d.advice, theirSubnet, who[d].subnet())
		all = append(all, Finding{Level: d.level, Evidence: strings.ReplaceAll(d.text, them, who[d].String()), Advice: advice})
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

// names are peers of whom one thing is said, each once: "node2 (172.31.0.12, fd00:31::12), node3 (172.31.0.13)".
type names struct {
	order     []string
	addresses map[string][]string // by name
	subnets   []netip.Prefix      // of their leases
}

// subnet is the one subnet of theirs, or a word for it.
func (n *names) subnet() string {
	if len(n.subnets) == 1 {
		return n.subnets[0].String()
	}
	return "SUBNET"
}

func (n *names) add(p probe.Path, lease netip.Prefix) {
	name := cmp.Or(p.Node, p.Key)
	if !slices.Contains(n.subnets, lease) && len(n.subnets) < 2 { // it is only asked whether there is one
		n.subnets = append(n.subnets, lease)
	}
	if n.addresses[name] == nil {
		n.order = append(n.order, name)
	}
	n.addresses[name] = append(n.addresses[name], p.Target.Underlay.String())
}

func (n *names) String() string {
	slices.Sort(n.order)
	var all []string
	for _, name := range n.order {
		slices.Sort(n.addresses[name])
		all = append(all, fmt.Sprintf("%s (%s)", name, strings.Join(n.addresses[name], ", ")))
	}
	return some(all)
}

// longGrace is from when on it is worth a word that a lease is gone: after etcd lost its memory.
const longGrace = 5 * time.Minute

// unprogrammed names peers whose entries are not in the kernel, or whose lease has vanished with others.
func (f Facts) unprogrammed() (all []Finding) {
	by, order := map[string][]string{}, []string{}
	var graced []string
	for _, p := range f.Peers {
		switch p.State {
		case status.Pending:
			why := p.Why
			if strings.HasSuffix(why, status.NotInPlace) { // of each something else
				why = "not all of it is in place yet"
			}
			if len(by[why]) == 0 {
				order = append(order, why)
			}
			by[why] = append(by[why], nameOf(p))
		case status.Grace:
			if p.Until.Sub(f.Now) > longGrace {
				graced = append(graced, nameOf(p))
			}
		}
	}
	for _, why := range order {
		text := "the kernel lacks what leads to " + some(by[why])
		if f.Status.Pending() == 0 { // else see entries
			text += ": " + why
		}
		all = append(all, failure("see entries, routes and device; selvaged explain ADDRESS follows a packet", "%s", text))
	}
	if len(graced) > 0 {
		all = append(all, warning("look at their daemons, which claim them again: selvaged status there", "the leases of %s are gone from etcd, which lost its memory; their entries are kept for as long as the leases would have run", some(graced)))
	}
	return all
}
