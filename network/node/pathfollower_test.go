package node

import (
	"testing"
	"time"
)

// TestRoutingDue: the kernel's routing is not examined during a repair, and once after it, or once the repair lasts.
func TestRoutingDue(t *testing.T) {
	start := time.Unix(1e9, 0)
	type step struct {
		what    string
		after   time.Duration // since the start
		stale   bool          // it may have changed
		pending time.Duration // since when entries have been out of sync; negative: they are in sync
		due     bool
		wakeAt  time.Duration // 0: not for this
	}
	const inSync = -1
	for name, steps := range map[string][]step{
		"repaired": {
			{what: "nothing happened", pending: inSync},
			{what: "a fault", after: time.Second, stale: true, pending: time.Second, wakeAt: time.Second + pendingFor},
			{what: "the repair goes on", after: time.Second + pendingFor/2, pending: time.Second, wakeAt: time.Second + pendingFor},
			{what: "more of it is seen", after: time.Second + pendingFor/2, stale: true, pending: time.Second, wakeAt: time.Second + pendingFor},
			{what: "repaired", after: time.Second + pendingFor*3/4, pending: inSync, due: true},
			{what: "later", after: 2 * time.Second, pending: inSync},
		},
		"not repaired": {
			{what: "a fault", stale: true, wakeAt: pendingFor},
			{what: "it lasts", after: pendingFor, due: true},
			{what: "it still lasts", after: 2 * pendingFor},
			{what: "another change meanwhile", after: 3 * pendingFor, stale: true, due: true},
		},
		"a foreign change": {
			{what: "without a fault", stale: true, pending: inSync, due: true},
			{what: "later", after: time.Second, pending: inSync},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f pathFollower
			for _, x := range steps {
				var since time.Time
				if x.pending >= 0 {
					since = start.Add(x.pending)
				}
				wake := &alarm{now: start.Add(x.after)}
				if due := f.routingDue(x.stale, since, wake); due != x.due {
					t.Errorf("%s: due %t, want %t", x.what, due, x.due)
				}
				var want time.Time
				if x.wakeAt != 0 {
					want = start.Add(x.wakeAt)
				}
				if !wake.at.Equal(want) {
					t.Errorf("%s: the alarm is at %v, want %v", x.what, wake.at, want)
				}
			}
		})
	}
}
