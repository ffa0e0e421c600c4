package backoff

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// TestBackoff runs through series of attempts, each made as soon as the pause before it is over.
func TestBackoff(t *testing.T) {
	for _, x := range []struct {
		name   string
		policy Policy
		want   []time.Duration
	}{
		{"doubles up to Max", Policy{Min: 100 * ms, Max: 500 * ms}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 500 * ms, 500 * ms}},
		{"First below Min", Policy{First: ms, Min: 8 * ms, Max: 20 * ms}, []time.Duration{ms, 8 * ms, 16 * ms, 20 * ms}},
		{"First repeated", Policy{Min: 10 * ms, Max: 50 * ms, Quick: 2}, []time.Duration{10 * ms, 10 * ms, 10 * ms, 20 * ms, 40 * ms, 50 * ms}},
	} {
		var b Backoff
		var got []time.Duration
		now := time.Unix(1e9, 0)
		for range x.want {
			got = append(got, b.Next(x.policy, now))
			if b.Due(b.At().Add(-1)) || !b.Due(b.At()) {
				t.Errorf("%s: not due exactly at the end of the pause", x.name)
			}
			now = b.At()
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: pauses %v, want %v", x.name, got, x.want)
		}
		b.Reset()
		if !b.Due(now) || !b.At().IsZero() {
			t.Errorf("%s: not due at once after a reset", x.name)
		}
		if got := b.Next(x.policy, now); got != x.want[0] {
			t.Errorf("%s: %v after a reset, want %v", x.name, got, x.want[0])
		}
	}
}

// TestSettle: only attempts that follow soon make the pauses grow.
func TestSettle(t *testing.T) {
	p := Policy{Min: 10 * ms, Max: time.Second, Settle: 7}
	var b Backoff
	now := time.Unix(1e9, 0)
	b.Next(p, now)
	now = b.At().Add(7 * 10 * ms)
	if b.Settled(p, now) || b.Next(p, now) != 20*ms {
		t.Errorf("settled after exactly 7 pauses")
	}
	now = b.At().Add(7*20*ms + 1)
	if !b.Settled(p, now) || b.Next(p, now) != 10*ms {
		t.Errorf("not settled after more than 7 pauses")
	}
	p.Settle = 0
	if got := b.Next(p, now.Add(time.Hour)); got != 20*ms {
		t.Errorf("without Settle, %v after an hour, want 20ms", got)
	}
}

func TestLimit(t *testing.T) {
	p := Policy{Min: 100 * ms, Max: time.Second}
	var b Backoff
	now := time.Unix(1e9, 0)
	b.Next(p, now)
	b.Limit(time.Second)
	if want := now.Add(100 * ms); !b.At().Equal(want) {
		t.Errorf("a longer limit moved the end to %v, want %v", b.At(), want)
	}
	b.Limit(20 * ms)
	if want := now.Add(20 * ms); !b.At().Equal(want) {
		t.Errorf("ends at %v, want %v", b.At(), want)
	}
}

// TestJitter: a pause is never longer than without jitter, and never shorter than what jitter leaves of it.
func TestJitter(t *testing.T) {
	p := Policy{Min: 100 * ms, Max: 100 * ms, Jitter: 0.5}
	var b Backoff
	seen := map[time.Duration]bool{}
	for range 100 {
		got := b.Next(p, time.Unix(1e9, 0))
		if got < 50*ms || got > 100*ms {
			t.Fatalf("%v is outside 50ms to 100ms", got)
		}
		seen[got] = true
	}
	if len(seen) < 2 {
		t.Error("all pauses have the same length")
	}
}

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1e9, 0)
	ask := func() Verdict { return l.Allow(2, time.Minute, now) }
	for i, want := range []Verdict{Pass, Pass, Last, Drop, Drop} {
		if got := ask(); got != want {
			t.Errorf("line %d: %v, want %v", i, got, want)
		}
	}
	now = now.Add(time.Minute - 1)
	if got := ask(); got != Drop {
		t.Errorf("before the period ends: %v, want Drop", got)
	}
	now = now.Add(1)
	for i, want := range []Verdict{Pass, Pass, Last} {
		if got := ask(); got != want {
			t.Errorf("next period, line %d: %v, want %v", i, got, want)
		}
	}
	if want := now.Add(time.Minute); !l.Next(time.Minute).Equal(want) {
		t.Errorf("Next is %v, want %v", l.Next(time.Minute), want)
	}
}

func TestDue(t *testing.T) {
	var l Limiter
	now := time.Unix(1e9, 0)
	if !l.Due(time.Minute, now) || l.Due(time.Minute, now.Add(59*time.Second)) || !l.Due(time.Minute, now.Add(time.Minute)) {
		t.Error("want the first line, none within a minute, and one after it")
	}
}
