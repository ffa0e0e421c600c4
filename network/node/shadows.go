package node

import (
	"fmt"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// topicShadow is the topic of foreign routes that shadow ours.
const topicShadow = "foreign route"

// shadowText describes a foreign route that shadows one of ours.
func (n *node) shadowText(x network.Shadow) string {
	if x.Own {
		return fmt.Sprintf("%s takes precedence over the route to this node's own pods, %s: remove it with %q unless it is "+
			"intended", x, x.Of, x.Command())
	}
	m, _, _ := n.view.Get(x.Owner)
	return describeShadow(x, m.NodeName)
}

// shadowProblems lists such routes for the status.
func (n *node) shadowProblems() (all []status.Problem) {
	shadows := n.shadows()
	first, more := shorten(shadows, manyShadows)
	for _, x := range first {
		all = append(all, status.Problem{
			Topic: topicShadow, Code: status.RouteShadowed, Text: status.Text(n.shadowText(x)),
			Since: n.journal.shadows.since[x],
		})
	}
	if more > 0 {
		all = append(all, status.Problem{
			Topic: topicShadow, Code: status.RouteShadowed,
			Text:  status.Text(fmt.Sprintf("%d more foreign routes take precedence over the overlay's routes", more)),
			Since: n.journal.shadows.since[shadows[manyShadows]],
		})
	}
	return all
}
