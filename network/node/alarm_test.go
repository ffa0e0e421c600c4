package node

import (
	"testing"
	"time"
)

func TestAlarm(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := alarm{now: now}
	for _, x := range []time.Time{{}, now.Add(-time.Second), now} {
		if a.set(x); !a.at.IsZero() {
			t.Fatalf("%v set the alarm to %v", x, a.at)
		}
	}
	a.set(now.Add(2 * time.Second))
	a.set(now.Add(time.Second))
	a.set(now.Add(3 * time.Second))
	if want := now.Add(time.Second); !a.at.Equal(want) {
		t.Errorf("the alarm is at %v, want the earliest %v", a.at, want)
	}
}
