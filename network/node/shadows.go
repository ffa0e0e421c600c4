package node

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// topicShadow is the topic of foreign routes that shadow ours.
const topicShadow = "foreign route"

// topicOverlap is the topic of foreign interfaces whose subnets overlap the node's own.
const topicOverlap = "foreign subnet"

// shadowText describes a foreign route that shadows one of ours.
func (n *node) shadowText(x network.Shadow) string {
	if x.Own {
		return fmt.Sprintf("%s takes precedence over the route to this node's own pods, %s: remove it with %q unless "+
			"it is intended", x, x.Of, x.Command())
	}
	m, _, _ := n.view.Get(x.Owner)
	return describeShadow(x, m.NodeName)
}

// cutByRoutes returns the families in which foreign routes in the main table keep packets from all of this node's pods,
// and from all other nodes.
func (n *node) cutByRoutes() (own, others [2]bool) {
	if n.paths == nil {
		return own, others
	}
	pods := n.podCuts()
	for _, x := range n.paths.Status().Faults {
		if !x.Main || !x.Sure {
			continue
		}
		if x.Own {
			own[x.Family] = own[x.Family] || x.All || pods.all[x.Family]
		} else {
			others[x.Family] = others[x.Family] || x.All
		}
	}
	return own, others
}

// overlap is an address of a foreign interface whose subnet overlaps one of the node's own.
type overlap struct {
	network.AddressKey
	own netip.Prefix
}

func (x overlap) String() string {
	return fmt.Sprintf("interface %s has the address %s, whose subnet overlaps this node's subnet %s: its hosts and "+
		"this node's pods do not reach each other; give one of the two another subnet", x.Link, x.Prefix, x.own)
}

// followOverlaps notes since when there are such addresses, and logs new ones. Whether they cut traffic, the routes
// show.
func (n *node) followOverlaps(now time.Time) {
	since := map[overlap]time.Time{}
	for _, own := range n.subnets {
		if !own.IsValid() {
			continue
		}
		connected := network.RouteKey{Prefix: own, Metric: network.ConnectedMetric(own)}
		bridge := n.tables.Routes.Get(connected).Have.Link // of pods without records
		for _, a := range n.kernel.Overlapping(own) {
			x := overlap{a, own}
			if a.Link == bridge && len(n.ownSide.state.Bridges) == 0 || len(since) == manyShadows {
				continue
			}
			at, known := n.overlaps[x]
			if !known {
				at = now
				n.journal.few("foreign subnets", now, func() { n.Log.Warn(x.String()) })
			}
			since[x] = at
		}
	}
	n.overlaps = since
}

// overlapProblems lists these addresses for the status.
func (n *node) overlapProblems() (all []status.Problem) {
	for x, since := range n.overlaps {
		all = append(all, status.Problem{
			Topic: topicOverlap, Code: status.SubnetOverlaps, Key: x.Link, Warning: true, Since: since,
			Text: status.Text(x.String()),
		})
	}
	return all
}

// shadowProblems lists such routes for the status.
func (n *node) shadowProblems() (all []status.Problem) {
	shadows := n.shadows()
	if len(shadows) == 0 {
		return nil
	}
	first, more := shorten(shadows, manyShadows)
	own, others := n.cutByRoutes()
	problem := func(text string, of ...network.Shadow) {
		var cut [2]bool
		for _, x := range of {
			f := subnet.FamilyOf(x.Of.Addr())
			cut[f] = cut[f] || x.Own && own[f] || !x.Own && others[f]
		}
		all = append(all, status.Problem{
			Topic: topicShadow, Code: status.RouteShadowed, Text: status.Text(text),
			Since: n.journal.shadows.since[of[0]], Cuts: familyNames(cut),
		})
	}
	for _, x := range first {
		problem(n.shadowText(x), x)
	}
	if more > 0 {
		rest := shadows[manyShadows:]
		problem(fmt.Sprintf("%d more foreign routes take precedence over the overlay's routes", more), rest...)
	}
	return all
}
