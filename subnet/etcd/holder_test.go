package etcd

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// holder is a running Hold.
type holder struct {
	t       *testing.T
	changed chan subnet.Lease
	ended   chan struct{}
	err     error
	stop    context.CancelFunc
}

func startHold(t *testing.T, s *Store, r subnet.Record) *holder {
	ctx, cancel := context.WithCancel(context.Background())
	h := &holder{t: t, changed: make(chan subnet.Lease), ended: make(chan struct{}), stop: cancel}
	go func() {
		defer close(h.ended)
		h.err = s.Hold(ctx, r, h.changed)
	}()
	t.Cleanup(func() {
		cancel()
		<-h.ended
	})
	return h
}

// change hands a lease to Hold, which takes it when it has tried to write the one before.
func (h *holder) change(l subnet.Lease) {
	h.t.Helper()
	select {
	case h.changed <- l:
	case <-h.ended:
		h.t.Fatalf("Hold returned %v", h.err)
	case <-time.After(patience):
		h.t.Fatalf("Hold did not take a change within %s", patience)
	}
}

// lost waits until the lease is.
func (h *holder) lost() {
	h.t.Helper()
	select {
	case <-h.ended:
		if !errors.Is(h.err, subnet.ErrLost) {
			h.t.Errorf("Hold returned %v", h.err)
		}
	case <-time.After(patience):
		h.t.Fatalf("not lost within %s", patience)
	}
}

// held fails the test if Hold has ended.
func (h *holder) held() {
	h.t.Helper()
	select {
	case <-h.ended:
		h.t.Errorf("Hold returned %v", h.err)
	default:
	}
}
