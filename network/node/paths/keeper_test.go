package paths

import (
	"errors"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/kernel"
)

// TestRoutingUnread: that the kernel's routing cannot be checked is in the status, since the first failure, until it
// can be checked again.
func TestRoutingUnread(t *testing.T) {
	woken := 0
	k := New(0, nil, func() { woken++ })
	failure := errors.New("too many open files")
	k.lookup = func() (*kernel.Lookup, error) { return nil, failure }
	at := time.Now()
	for i := range 3 {
		k.checkAt, k.rested = at, time.Time{}
		k.check(at.Add(time.Duration(i) * time.Second))
	}
	if s := k.Status(); s.Unread != failure || !s.Since.Equal(at) || woken != 1 || k.checkAt.IsZero() {
		t.Errorf("%v since %v, woken %d times; want %v since %v, once, and another try", s.Unread, s.Since, woken, failure, at)
	}
	k.lookup, k.rested = kernel.OpenLookup, time.Time{}
	k.check(at.Add(time.Minute))
	if s := k.Status(); s.Unread != nil || !s.Since.IsZero() || woken != 2 {
		t.Errorf("%v since %v, woken %d times; want it over", s.Unread, s.Since, woken)
	}
}
