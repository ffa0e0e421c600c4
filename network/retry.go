package network

import (
	"time"

	"github.com/selvage-net/selvage/backoff"
)

// Backoffs between two attempts at one key. The longest is also how long a key can stay wrong after a conflict has
// ended.
const (
	minBackoff  = 5 * time.Millisecond
	maxBackoff  = 500 * time.Millisecond
	retryExpiry = 10 * time.Second // the backoff of a key left alone for so long is forgotten
	// retryBackoff is the longest wait after a failure once something about the key has changed: the obstacle may be
	// gone.
	retryBackoff = 20 * time.Millisecond
	// conflictRepairs is the number of repairs in a row that make a conflict.
	conflictRepairs = 5
)

// retry is the backoff of one key. Failures and repairs are one series of attempts. A repair is made at once, and so is
// the second: the backoff follows an attempt.
type retry struct {
	backoff.Backoff
	repairs int // in a row; failures in between do not count
}

// due reports whether k may be tried now, and if not, when.
func (t *Table[K, V]) due(k K, now time.Time) (time.Time, bool) {
	p := t.retries[k]
	if p == nil {
		return now, true
	}
	return p.At(), p.Due(now)
}

// tried records an attempt at k. Setting a key for the first time is free. A failure, a repair, and the removal of an
// object that comes back make the next attempt wait longer.
func (t *Table[K, V]) tried(k K, now time.Time, free bool, err error) {
	p := t.retries[k]
	if p == nil {
		if err == nil && free {
			return
		}
		p = &retry{}
		t.retries[k] = p
	}
	// Settled: the key was left alone for eight backoffs, the one after the attempt and seven more. So only changes
	// more frequent than that make the backoff grow.
	policy := backoff.Policy{Min: minBackoff, Max: maxBackoff, Settle: 7}
	if !t.HasFailed(k) && p.Settled(policy, now) {
		*p = retry{}
	}
	policy.Settle = 0 // a series of failures ends only when it is reset above
	if err != nil {
		t.failed[k] = struct{}{}
	} else {
		delete(t.failed, k)
		p.repairs++
		policy.First = minBackoff / 8
	}
	p.Next(policy, now)
}

// HasFailed reports whether the last attempt at k failed.
func (t *Table[K, V]) HasFailed(k K) bool {
	_, failed := t.failed[k]
	return failed
}

// forget drops the backoff of k.
func (t *Table[K, V]) forget(k K) {
	delete(t.retries, k)
	delete(t.failed, k)
}

// retrySoon shortens the backoff after a failure at k, because the kernel has reported a change of k.
func (t *Table[K, V]) retrySoon(k K) {
	if len(t.failed) > 0 && t.HasFailed(k) {
		t.retries[k].Limit(retryBackoff)
	}
}

// retrySoonWhere does the same for the keys that where picks by the desired object. It walks only those that failed:
// after a device was recreated there are many with a backoff.
func (t *Table[K, V]) retrySoonWhere(where func(K, V) bool) {
	for k := range t.failed {
		if c := t.Get(k); c.Wanted && where(k, c.Want) {
			t.noteChange()
			t.retrySoon(k)
		}
	}
}

// inConflict reports whether another process keeps changing k.
func (t *Table[K, V]) inConflict(k K) bool {
	p := t.retries[k]
	return p != nil && p.repairs >= conflictRepairs
}

// expireRetries forgets the backoff of keys that were left alone for long. It walks all backoffs, which are many after
// a device was recreated, so it does not do that in every pass.
func (t *Table[K, V]) expireRetries(now time.Time) {
	if len(t.retries) == 0 || now.Sub(t.expired) < retryExpiry/10 {
		return
	}
	t.expired = now
	for k, p := range t.retries {
		if _, pending := t.dirty[k]; !pending && now.Sub(p.At()) > retryExpiry-maxBackoff {
			t.forget(k)
		}
	}
	if len(t.retries) == 0 {
		t.retries, t.failed = map[K]*retry{}, map[K]struct{}{} // a map keeps the room it once needed
	}
}
