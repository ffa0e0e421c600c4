package network

import "time"

// Pauses between two attempts at one key. The longest is also how long a key can stay wrong after whoever fought us for
// it has stopped.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = 500 * time.Millisecond
	retryExpiry   = 10 * time.Second // a key left alone for so long is forgotten
	// retryPause is the longest pause after a failure once something about the key has changed: what stood in the way
	// may be gone.
	retryPause = 20 * time.Millisecond
	// conflictRepairs is how many repairs in a row are no accident.
	conflictRepairs = 5
)

type retry struct {
	last    time.Time // of the last attempt
	pause   time.Duration
	failed  bool
	repairs int // in a row; what fails in between is nobody's doing
}

// trusted reports whether the key was left alone for long enough that what comes now is not the same fight: for eight
// times the pause, so that only who changes it faster than that drives the pause up.
func (p *retry) trusted(now time.Time) bool { return now.Sub(p.last) > 8*p.pause }

// due reports whether k may be tried now, else when.
func (t *Table[K, V]) due(k K, now time.Time) (time.Time, bool) {
	p := t.retries[k]
	if p == nil {
		return now, true
	}
	at := p.last.Add(p.pause)
	return at, !now.Before(at)
}

// tried notes an attempt at k. The first programming of a key is free; an attempt that failed, every repair of what
// had been right, and every removal of what comes back makes the next one wait longer.
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
	if !p.failed && p.trusted(now) {
		p.pause, p.repairs = 0, 0
	}
	if err == nil {
		p.repairs++
	}
	p.last, p.pause, p.failed = now, pauseAfter(p.pause, err), err != nil
}

// retrySoon says that the kernel told something new about k.
func (t *Table[K, V]) retrySoon(k K) {
	if len(t.retries) == 0 {
		return
	}
	if p := t.retries[k]; p != nil && p.failed {
		p.pause = min(p.pause, retryPause)
	}
}

// retrySoonWhere says so about the keys that where picks by what is wanted under them.
func (t *Table[K, V]) retrySoonWhere(where func(K, V) bool) {
	for k := range t.retries {
		if c := t.Get(k); c.Wanted && where(k, c.Want) {
			t.retrySoon(k)
		}
	}
}

// fought reports whether somebody keeps changing k.
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

// expireRetries forgets the pace of keys that nobody touched for long. It walks all that are paced, which is a lot after a
// device was replayed, so it does not do that in every pass.
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
