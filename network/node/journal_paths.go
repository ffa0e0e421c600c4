package node

import (
	"cmp"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// pathLog is what is logged of the paths to other nodes.
type pathLog struct {
	open  map[pathTopic]pathProblem // as logged
	limit backoff.Limiter
}

// pathTopic identifies a problem with the paths.
type pathTopic struct {
	topic  string
	code   status.Reason // of the routing
	family subnet.Family
	n      int // among those
}

// At most manyPaths lines about the paths are logged in pathsLogged: a link that fails again and again would fill the
// log.
const (
	manyPaths   = 10
	pathsLogged = 10 * time.Minute
)

// identity is what of a problem's text is compared.
func (p pathProblem) identity() string { return cmp.Or(p.same, p.text) }

// pathsChanged logs problems with the paths that are new or have changed, and their ends.
func (j *journal) pathsChanged(all []pathProblem, now time.Time) {
	l := &j.paths
	if len(all) == 0 && len(l.open) == 0 {
		return
	}
	log := func(level logrus.Level, text string, since time.Time) {
		switch l.limit.Allow(manyPaths, pathsLogged, now) {
		case backoff.Pass:
			j.log.WithField("since", since.Format(time.RFC3339)).Log(level, text)
		case backoff.Last:
			j.log.Warn("the paths to other nodes keep changing; not logged for now: selvaged status shows them")
		case backoff.Drop:
		}
	}
	open := make(map[pathTopic]pathProblem, len(all))
	for _, p := range all {
		topic := pathTopic{topic: p.topic, family: p.family}
		if p.topic == topicRouting {
			topic.code = p.code
		}
		for _, taken := open[topic]; taken; _, taken = open[topic] {
			topic.n++
		}
		if before, known := l.open[topic]; !known || before.identity() != p.identity() {
			level := logrus.ErrorLevel
			if p.warning {
				level = logrus.WarnLevel
			}
			log(level, p.topic+": "+p.text, p.since)
		}
		open[topic] = p
	}
	for topic, p := range l.open {
		if _, still := open[topic]; !still {
			log(logrus.InfoLevel, p.topic+": problem resolved: "+p.text, p.since)
		}
	}
	l.open = open
}
