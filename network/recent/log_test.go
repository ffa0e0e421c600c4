package recent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// all returns the values that are Kept, and how many were missed.
func all(t *testing.T, l *Log[int]) (values []int, missed uint64) {
	t.Helper()
	err := l.Each(t.Context(), false, func(v int, before uint64) error {
		values = append(values, v)
		missed += before
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values, missed
}

func TestKept(t *testing.T) {
	var l Log[int]
	if values, _ := all(t, &l); len(values) > 0 {
		t.Errorf("an empty log has %v", values)
	}
	for n := range 3 {
		l.Add(n)
	}
	if values, _ := all(t, &l); !slices.Equal(values, []int{0, 1, 2}) {
		t.Errorf("values %v", values)
	}
	for n := 3; n < 2*Kept+5; n++ {
		l.Add(n)
	}
	values, missed := all(t, &l)
	if len(values) != Kept || values[0] != Kept+5 || values[Kept-1] != 2*Kept+4 || missed != 0 {
		t.Errorf("%d values, from %d to %d, %d missed", len(values), values[0], values[len(values)-1], missed)
	}
}

func TestMissed(t *testing.T) {
	var l Log[int]
	l.Add(1)
	l.Miss()
	l.Miss()
	l.Add(2)
	l.Add(3)
	if values, missed := all(t, &l); missed != 2 || len(values) != 3 {
		t.Errorf("%d missed of %v, want 2", missed, values)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log[int]
		l.Add(0)
		ctx, cancel := context.WithCancel(t.Context())
		type seen struct {
			value  int
			missed uint64
		}
		var got []seen
		done := make(chan error, 2)
		slow := make(chan struct{})
		go func() {
			done <- l.Each(ctx, true, func(v int, missed uint64) error {
				got = append(got, seen{v, missed})
				if v == 2 {
					<-slow
				}
				return nil
			})
		}()
		broken := errors.New("disconnected")
		go func() { done <- l.Each(ctx, true, func(int, uint64) error { return broken }) }()
		if err := <-done; !errors.Is(err, broken) {
			t.Errorf("error %v, want that of the reader", err)
		}
		for n := 1; n <= 2; n++ {
			l.Add(n)
			synctest.Wait()
		}
		for n := 3; n < 3+Kept+7; n++ { // while the reader is busy
			l.Add(n)
		}
		close(slow)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(got) != 3+Kept || got[3] != (seen{10, 7}) || got[4].missed != 0 {
			t.Errorf("%d values, the first after the pause %+v", len(got), got[3])
		}
	})
}
