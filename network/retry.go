package network

import "time"

// Pauses between two attempts at one key. The longest is also how long a key can stay wrong after a conflict has ended.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = 500 * time.Millisecond
	retryExpiry   = 10 * time.Second // the backoff of a key left alone for so long is forgotten
	// retryPause is the longest pause after a failure once something about the key has changed: the obstacle may be gone.
	retryPause = 20 * time.Millisecond
	// conflictRepairs is the number of repairs in a row that make a conflict.
	conflictRepairs = 5
)

type retry struct {
	last    time.Time // of the last attempt
	pause   time.Duration
	failed  bool
	repairs int // in a row; failures in between do not count
}

// settled reports whether the key was left alone for long enough that a change now is not the same conflict: for eight
// times the pause, so that only changes more frequent than that make the pause grow.
func (p *retry) settled(now time.Time) bool { return now.Sub(p.last) > 8*p.pause }

// due reports whether k may be tried now, and if not, when.
func (t *Table[K, V]) due(k K, now time.Time) (time.Time, bool) {
	p := t.retries[k]
	if p == nil {
		return now, true
	}
	at := p.last.Add(p.pause)
	return at, !now.Before(at)
}

// tried records an attempt at k. Setting a key for the first time is free. A failure, a repair, and the removal of an
// object that comes back make the next attempt wait longer.
func (t *Table[K, V]) tried(k K, now time.Time, free bool, err error) {
	p := t.retries[k]
	if p == nil {
		if err == nil && free {
			return
		}
		// The first repair is at once, and so is the second: pause is what follows the attempt.
		p = &retry{}
		t.retries[k] = p
	}
	if !p.failed && p.settled(now) {
		p.pause, p.repairs = 0, 0
	}
	if err == nil {
		p.repairs++
	}
	p.last, p.pause, p.failed = now, pauseAfter(p.pause, err), err != nil
}

// retrySoon shortens the pause after a failure at k, because the kernel has reported a change of k.
func (t *Table[K, V]) retrySoon(k K) {
	if len(t.retries) == 0 {
		return
	}
	if p := t.retries[k]; p != nil && p.failed {
		p.pause = min(p.pause, retryPause)
	}
}

// retrySoonWhere does the same for the keys that where picks by the wanted object.
func (t *Table[K, V]) retrySoonWhere(where func(K, V) bool) {
	for k := range t.retries {
		if c := t.Get(k); c.Wanted && where(k, c.Want) {
			t.retrySoon(k)
		}
	}
}

// inConflict reports whether another process keeps changing k.
func (t *Table[K, V]) inConflict(k K) bool {
	p := t.retries[k]
	return p != nil && p.repairs >= conflictRepairs
}

func pauseAfter(pause time.Duration, err error) time.Duration {
	if pause == 0 && err == nil {
		return shortestPause / 8
	}
	return min(max(2*pause, shortestPause), longestPause)
}

// expireRetries forgets the backoff of keys that were left alone for long. It walks all backoffs, which are many after
// a device was made anew, so it does not do that in every pass.
func (t *Table[K, V]) expireRetries(now time.Time) {
	if len(t.retries) == 0 || now.Sub(t.expired) < retryExpiry/10 {
		return
	}
	t.expired = now
	for k, p := range t.retries {
		if _, pending := t.dirty[k]; !pending && now.Sub(p.last) > retryExpiry {
			delete(t.retries, k)
		}
	}
	if len(t.retries) == 0 {
		t.retries = map[K]*retry{} // a map keeps the room it once needed
	}
}
