// Package recent keeps the last values of a series for those who ask, and passes each on to those who follow. It is
// pure.
package recent

import (
	"context"
	"sync"
)

// Kept is how many values are kept.
const Kept = 256

// Log has the last values. The zero value is ready for use. Its methods are safe for concurrent use.
type Log[T any] struct {
	mu      sync.Mutex
	ring    []entry[T]    // the value number n is at n modulo Kept
	total   uint64        // of all values so far
	missed  uint64        // since the last value
	changed chan struct{} // closed at the next value; nil: no reader waits
}

type entry[T any] struct {
	value  T
	missed uint64 // before the value
}

// Add adds a value, and wakes who follows. It does not block.
func (l *Log[T]) Add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry[T]{v, l.missed}
	l.missed = 0
	if len(l.ring) < Kept {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.total%Kept] = e
	}
	l.total++
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Miss notes that at least one value was missed. The next one reports it.
func (l *Log[T]) Miss() {
	l.mu.Lock()
	l.missed++
	l.mu.Unlock()
}

// next returns the value with a number, or if it is not kept any more the oldest one that is, and its number. Without a
// value it returns a channel that is closed when there is one.
func (l *Log[T]) next(number uint64) (e entry[T], at uint64, wait <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number == l.total {
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		return e, number, l.changed
	}
	at = max(number, l.total-uint64(len(l.ring)))
	return l.ring[at%Kept], at, nil
}

// Each calls yield for the values that are kept, the oldest first; with follow also for those to come, until ctx ends.
// An error of yield ends it, and is returned. missed is how many values were missed before this one, by [Log.Miss] or
// because yield is too slow.
func (l *Log[T]) Each(ctx context.Context, follow bool, yield func(v T, missed uint64) error) error {
	l.mu.Lock()
	number, end := l.total-uint64(len(l.ring)), l.total
	l.mu.Unlock()
	for follow || number < end {
		e, at, wait := l.next(number)
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := yield(e.value, e.missed+at-number); err != nil {
			return err
		}
		number = at + 1
	}
	return nil
}
