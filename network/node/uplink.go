package node

import (
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/uplink"
)

// How long a change of the uplink must last before it is applied. Within one interface that is short: an address that
// is renewed is removed and added again at once. Another interface is chosen only when the first one stays away: a flap
// must not move the node.
const (
	sameUplinkDelay  = 50 * time.Millisecond
	otherUplinkDelay = 3 * time.Second
)

// uplinkBackoff spaces the changes that are applied: each is a write to the store, and work for every peer. An uplink
// that keeps changing more than once a minute is followed more and more slowly.
var uplinkBackoff = backoff.Policy{Min: time.Second, Max: time.Minute, Settle: 60}

// uplinkFollower decides when a change of the interface, address or MTU that carry the overlay is applied. It belongs
// to the loop's goroutine.
type uplinkFollower struct {
	journal *journal
	at      time.Time       // when to check a change again; zero: no change is pending
	applied backoff.Backoff // between two changes that are applied
	lostAt  time.Time       // when to report that there is no uplink; zero: there is one
}

// recheck has the uplink looked at again at a time.
func (u *uplinkFollower) recheck(at time.Time) { u.at = at }

// step returns the uplink to use instead of the current one, if there is one that has lasted. stale says that the
// kernel has reported something about it; otherwise nothing is done unless a time has come.
func (u *uplinkFollower) step(
	wake *alarm, stale bool, current uplink.Choice, choose func() (uplink.Choice, error),
) (next uplink.Choice, changed bool) {
	defer func() { wake.set(u.at); wake.set(u.lostAt) }()
	due := func(t time.Time) bool { return !t.IsZero() && !wake.now.Before(t) }
	if !stale && !due(u.at) && !due(u.lostAt) {
		return next, false
	}
	next, err := choose()
	if err != nil {
		// Nothing else can carry the overlay, so it stays as it is. The kernel reports what comes back. A reload of the
		// interface is over before its absence is worth a report.
		u.at = time.Time{}
		if u.lostAt.IsZero() {
			u.lostAt = wake.now.Add(transientTime)
		} else if due(u.lostAt) {
			u.journal.problem(topicUplink, err)
		}
		return next, false
	}
	u.lostAt = time.Time{}
	u.journal.resolved(topicUplink)
	if next.Equal(current) {
		u.at = time.Time{}
		return next, false
	}
	if u.at.IsZero() {
		delay := sameUplinkDelay
		if next.Name != current.Name && next.Index != current.Index {
			delay = otherUplinkDelay
		}
		if u.at = wake.now.Add(delay); !sameUplink(next, current) && !u.applied.Due(u.at) {
			u.at = u.applied.At()
		}
	}
	if wake.now.Before(u.at) {
		return next, false
	}
	u.at = time.Time{}
	if !sameUplink(next, current) {
		u.applied.Next(uplinkBackoff, wake.now)
	}
	return next, true
}

// sameUplink reports whether two choices differ in other addresses at most, such as a service's: no peer is concerned.
func sameUplink(a, b uplink.Choice) bool {
	a.OnLink = b.OnLink
	return a.Equal(b)
}
