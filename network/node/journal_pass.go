package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/userspace"
)

// How often repairs, each conflict, and the failures of a kind are logged at most.
const (
	repairsLogged  = 10 * time.Second // at first: see repairsBackoff
	conflictLogged = time.Minute
	// transientTime is how long a failure that can come from a device being added or removed has to last before it is
	// logged.
	transientTime = time.Second
	// manyAuthors is how many processes that changed something are named.
	manyAuthors = 5
)

// repairsBackoff spaces the lines about repairs while something needs repair again and again.
var repairsBackoff = backoff.Policy{Min: repairsLogged, Max: 10 * time.Minute, Settle: 1}

// repairLog collects repairs until they are logged.
type repairLog struct {
	count  int
	by     map[string]bool // who had changed them, as far as that is known
	logged backoff.Backoff
}

// conflict is an entry that another process keeps changing.
type conflict struct {
	kind, key   string
	since, last time.Time // when it began, and when it was seen last
	want, have  string
	by          string // who changed it last, if that is known
	logged      seldom
}

// failure says since when changes of one kind fail.
type failure struct {
	since, logged time.Time // logged is zero until it was
	again         seldom
	key           string // of the entry that was named
	err           error  // as logged
}

// pass logs what a pass did, as far as it matters to operators. The settings of our own devices are left out: they are
// set whenever a device is made.
func (j *journal) pass(now time.Time, r network.Result, devices []string) {
	ours := func(setting string) bool {
		return slices.ContainsFunc(devices, func(d string) bool { return strings.Contains(setting, "/"+d+"/") })
	}
	if set := slices.DeleteFunc(r.Sysctls, ours); len(set) > 0 {
		slices.Sort(set)
		j.few("kernel settings", now, func() {
			j.log.WithField("set", set).Warn("changed kernel settings that the overlay needs")
		})
	}
	j.repaired(now, r.Repaired, r.Repairs)
	j.conflicting(now, r.Conflicts)
	j.failed(now, r)
}

// repaired logs how many entries were repaired: the first at once, those that follow soon in one line.
func (j *journal) repaired(now time.Time, count int, repairs []network.Repair) {
	l := &j.repairs
	l.count += count
	for _, r := range repairs {
		if r.By != "" && len(l.by) < manyAuthors {
			l.by[r.By] = true
		}
	}
	if l.count == 0 || !l.logged.Due(now) {
		return
	}
	l.logged.Next(repairsBackoff, now)
	entry := j.log.WithField("repaired", l.count)
	if len(l.by) > 0 {
		entry = entry.WithField("by", slices.Sorted(maps.Keys(l.by)))
	}
	entry.Warn("repaired external changes to managed kernel entries")
	l.count = 0
	clear(l.by)
}

// conflicting logs each entry that another process keeps changing, with both values.
func (j *journal) conflicting(now time.Time, conflicts []network.Conflict) {
	for _, c := range conflicts {
		key := c.Kind + " " + c.Key
		before, known := j.conflicts[key]
		if !known {
			before.since = now
		}
		due := before.logged.due(now)
		j.conflicts[key] = conflict{c.Kind, c.Key, before.since, now, c.Want, c.Have, c.By, before.logged}
		if !due {
			continue
		}
		j.few("conflicts", now, func() {
			j.log.WithFields(logrus.Fields{"want": c.Want, "have": c.Have}).
				Errorf("conflict: another process keeps changing %s; repairing it with backoff, find that process%s",
					key, authored("; last changed by ", c.By))
		})
	}
	maps.DeleteFunc(j.conflicts, func(_ string, c conflict) bool { return now.Sub(c.last) > 2*conflictLogged })
}

// authored names who did something, if that is known.
func authored(before, who string) string {
	if who == "" {
		return ""
	}
	return before + who
}

// failed logs what could not be changed: of each kind the first, and how many more.
func (j *journal) failed(now time.Time, r network.Result) {
	if len(r.Failures) == 0 && r.Retry.IsZero() {
		for _, kind := range slices.Sorted(maps.Keys(j.failures)) {
			if !j.failures[kind].logged.IsZero() {
				j.few(kind, now, func() { j.log.Infof("%s: problem resolved", kind) })
			}
		}
		clear(j.failures)
		return
	}
	count, first := map[string]int{}, map[string]network.Failure{}
	for _, f := range r.Failures {
		if f.Kind == "sysctl" && strings.Contains(f.Key, "/conf/") && errors.Is(f.Err, fs.ErrNotExist) {
			continue // of the uplink, which is gone: the topic uplink reports that
		}
		if count[f.Kind]++; count[f.Kind] == 1 {
			first[f.Kind] = f
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(first)) {
		f := j.failures[kind]
		if f == nil {
			f = &failure{since: now}
			j.failures[kind] = f
		}
		err := fmt.Errorf("%s %s: %w", kind, first[kind].Key, first[kind].Err)
		if transient(err) && now.Sub(f.since) < transientTime || !f.again.due(now) {
			continue
		}
		f.logged, f.key, f.err = now, first[kind].Key, err
		if more := count[kind] - 1; more > 0 {
			err = fmt.Errorf("%w (and %d more of its kind)", err, more)
		}
		j.few(kind, now, func() { j.log.Error(err) })
	}
}

// transient reports whether a failure may only come from a device that is being added or removed at this moment.
func transient(err error) bool {
	// EEXIST: another device of the name was added just now, and its notification is on the way.
	return slices.ContainsFunc([]error{
		unix.ENODEV, unix.EEXIST, unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, fs.ErrNotExist,
		userspace.ErrStarting,
	}, func(e error) bool { return errors.Is(err, e) })
}
