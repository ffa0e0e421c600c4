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
