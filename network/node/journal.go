package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
)

// journal decides what is logged and when, and remembers what is wrong for the status: one fact is one log line,
// however often it is met, and what can come in any number is bounded. It belongs to the loop's goroutine.
type journal struct {
	log       logrus.FieldLogger
	open      map[string]problem          // by topic: see problem
	warning   string                      // of the backend, as logged
	unknown   string                      // keys of the network config without effect, as logged
	fileLog   seldom                      // external changes to the subnet file
	limits    map[string]*backoff.Limiter // by subject: see few
	repairs   repairLog
	conflicts map[string]conflict // by kind and key
	failures  map[string]*failure // by kind
	rejected  rejectedLog
	shared    sharedLog
	churn     churn
	shadows   shadowLog
	paths     pathLog
}

// Topics of problems, see journal.problem.
const (
	topicKernel     = "observe"
	topicSetup      = "start"
	topicConfig     = "config"
	topicUplink     = "uplink"
	topicAdvice     = "annotations"
	topicAnnounce   = "network condition"
	topicMAC        = "MAC address"
	topicSubnetFile = "subnet file"
	topicStatusFile = "status file"
	topicCache      = "cached leases"
)

// problem is what is wrong with one topic.
type problem struct {
	text   string
	err    error
	since  time.Time
	logged bool // the latest error was
}

func newJournal(log logrus.FieldLogger) *journal {
	return &journal{
		log: log, open: map[string]problem{}, limits: map[string]*backoff.Limiter{},
		conflicts: map[string]conflict{}, failures: map[string]*failure{},
		repairs:  repairLog{by: map[string]bool{}},
		rejected: rejectedLog{reasons: map[string]string{}, ownIP: map[string]time.Time{}},
		shared:   sharedLog{named: map[string]bool{}},
	}
}

// problem opens a problem with a topic. The error is logged unless it is the one that was logged last.
func (j *journal) problem(topic string, err error) {
	p, known := j.open[topic]
	if p.text == err.Error() {
		return
	}
	if !known {
		p.since = time.Now()
	}
	p.text, p.err = err.Error(), err
	p.logged = j.few(topic, time.Now(), func() { j.log.Error(err) })
	j.open[topic] = p
}

// resolved closes the problem with a topic, if there is one.
func (j *journal) resolved(topic string) {
	if p, known := j.open[topic]; known {
		delete(j.open, topic)
		if p.logged {
			j.log.Infof("%s: problem resolved", topic)
		}
	}
}

// warn logs a warning of the backend about the config and the uplink, once. An empty text ends the warning.
func (j *journal) warn(text string) {
	if text != j.warning && text != "" {
		j.few("network config", time.Now(), func() { j.log.Warn(text) })
	}
	j.warning = text
}

// unknownKeys logs the keys of the network config that have no effect, once.
func (j *journal) unknownKeys(keys []subnet.UnknownKey) {
	first, more := shorten(keys, manyKeys)
	text := ""
	for _, k := range first {
		text += "; " + k.String()
	}
	if more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	if text != j.unknown && text != "" {
		j.few("network config", time.Now(), func() {
			j.log.Warn("network config: keys without effect: " + text[len("; "):])
		})
	}
	j.unknown = text
}

// manyKeys is how many keys without effect are named.
const manyKeys = 5

// wake sets the times at which there is something to log that was held back.
func (j *journal) wake(a *alarm) {
	if j.churn.any() {
		a.set(j.churn.backoff.At())
	}
	if j.repairs.count > 0 {
		a.set(j.repairs.logged.At())
	}
}

// fileRepaired logs that another process removed or changed the subnet file.
func (j *journal) fileRepaired(path, cause string, now time.Time) {
	if j.fileLog.due(now) {
		j.log.WithFields(logrus.Fields{"subnet_file": path, "found": cause}).
			Warn("repaired external change to the subnet file")
	}
}

// How many lines about one subject are logged within fewLogged, see journal.few.
const (
	fewLines  = 6
	fewLogged = 10 * time.Minute
)

// few logs a line unless there were many about its subject lately, and reports whether it did. It is for lines that
// each differ, or that another process can cause as often as it likes.
func (j *journal) few(subject string, now time.Time, line func()) bool {
	l := j.limits[subject]
	if l == nil {
		l = &backoff.Limiter{}
		j.limits[subject] = l
	}
	switch l.Allow(fewLines, fewLogged, now) {
	case backoff.Pass:
		line()
		return true
	case backoff.Last:
		j.log.Warnf("%s: many changes; more are not logged for now", subject)
	case backoff.Drop:
	}
	return false
}

// seldom lets a line through that says the same each time: as long as there is reason for it, at growing intervals.
type seldom struct{ backoff.Backoff }

// seldomBackoff spaces the lines of a seldom.
var seldomBackoff = backoff.Policy{Min: time.Minute, Max: time.Hour, Settle: 1}

// due asks for one line.
func (s *seldom) due(now time.Time) bool {
	if !s.Due(now) {
		return false
	}
	s.Next(seldomBackoff, now)
	return true
}

// shorten returns the first n of names, and how many more there are.
func shorten[T any](names []T, n int) (first []T, more int) {
	if len(names) <= n {
		return names, 0
	}
	return slices.Clone(names[:n]), len(names) - n
}
