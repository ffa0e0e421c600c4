package node

import (
	"fmt"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// aheadTopic is the topic of routes of others that go before ours.
const aheadTopic = status.AheadTopic

// manyAhead is how many of them are named, in the log within aheadSaidEvery, and in the status.
const (
	manyAhead      = 5
	aheadSaidEvery = time.Minute
)

// ahead is what was said of routes of others that go before ours. They are others' to remove: to a part of a subnet, or with a
// better metric, they may be meant.
type ahead struct {
	since map[network.Shadow]time.Time // those there are, and since when
	said  bool                         // that there are some
	begin time.Time                    // of the time in which
	named int                          // so many were named
}

// sayAhead says of each such route once that it is there, and when all are gone.
func (n *node) sayAhead(now time.Time) {
	a := &n.ahead
	there := n.tables.Shadows()
	if len(there) == 0 {
		if a.said {
			n.Log.Info("no route of somebody else's goes before the overlay's any more")
		}
		a.since, a.said = nil, false
		return
	}
	since := make(map[network.Shadow]time.Time, len(there))
	for _, x := range there {
		if at, known := a.since[x]; known {
			since[x] = at
			continue
		}
		since[x] = now
		n.nameAhead(x, now)
	}
	a.since = since
}

func (n *node) nameAhead(x network.Shadow, now time.Time) {
	a := &n.ahead
	if now.Sub(a.begin) > aheadSaidEvery {
		a.begin, a.named = now, 0
	}
	switch a.named++; {
	case a.named <= manyAhead:
		a.said = true
		n.Log.Warn(n.aheadText(x))
	case a.named == manyAhead+1:
		n.Log.Warn("more routes of somebody else's go before the overlay's; they are not named for now")
	}
}

func (n *node) aheadText(x network.Shadow) string {
	who := "another node"
	if m, ok, _ := n.view.Get(x.Owner); ok && m.NodeName != "" {
		who = m.NodeName
	}
	return fmt.Sprintf("%s goes before the overlay's to %s, %s: remove it, unless it is meant", x, who, x.Of)
}

// aheadProblems lists them for the status.
func (n *node) aheadProblems() (all []status.Problem) {
	there := n.tables.Shadows()
	for i, x := range there {
		p := status.Problem{Topic: aheadTopic, Text: n.aheadText(x), Since: n.ahead.since[x]}
		if i == manyAhead {
			p.Text = fmt.Sprintf("%d more go before the overlay's", len(there)-i)
		}
		all = append(all, p)
		if i == manyAhead {
			break
		}
	}
	return all
}
