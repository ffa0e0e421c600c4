package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/outage"
)

// TestAnHourOfFaults: whatever the API server does for an hour, it costs a bounded number of attempts and log lines.
func TestAnHourOfFaults(t *testing.T) {
	const attempts, lines = 900, 60
	denied := errors.New("denied")
	for name, fault := range map[string]func(i int, w *watcher) error{
		"refuses everything":                   func(int, *watcher) error { return denied },
		"refuses everything, with other words": func(i int, _ *watcher) error { return fmt.Errorf("denied %d", i) },
		"ends each watch at once":              func(int, *watcher) error { return apiserver.ErrEnded },
		"is another store each time":           func(int, *watcher) error { return errHistory },
		"has forgotten everything": func(_ int, w *watcher) error {
			w.listed = true
			return errForgotten
		},
		"cannot go on, and is the store we know": func(_ int, w *watcher) error {
			w.listed, w.checked = true, true
			return apiserver.ErrExpired
		},
		"cannot go on, and is not known": func(i int, w *watcher) error {
			if w.listed, w.checked = true, false; w.doubt {
				return denied
			}
			return apiserver.ErrExpired
		},
		"answers, and breaks off": func(i int, w *watcher) error {
			w.contact.Over()
			return denied
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, kept := idleWatcher(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				n := 0
				err := w.run(ctx, func(context.Context) error {
					n++
					return fault(n, w)
				})
				if err != nil || n < 60 || n > attempts {
					t.Errorf("%d attempts, %v", n, err)
				}
				if got := len(kept.entries); got > lines {
					t.Errorf("%d lines", got)
				}
			})
		})
	}
}

// idleWatcher returns a watcher that sends no request.
func idleWatcher(t *testing.T) (*watcher, *logged) {
	log, kept := logger(t)
	s, err := New(Options{Node: "one", API: apiserver.Options{URL: "http://127.0.0.1:1"}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{Store: s, conf: newNetConf("/dev/null"), changed: func(subnet.Event) error { return nil }}, kept
}

// TestAnHourOfHolding does the same for a lease that is held.
func TestAnHourOfHolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kept := idleWatcher(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := 0
		h := &hold{current: subnet.Record{Name: "one"}}
		changed, ended := make(chan subnet.Lease), make(chan struct{})
		defer func() { <-ended }()
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				select {
				case changed <- dualLease():
				case <-ctx.Done():
				}
				time.Sleep(time.Second)
			}
		}()
		err := w.holdOn(ctx, h, changed, func(context.Context, *hold, <-chan subnet.Lease, *outage.Outage) (
			<-chan subnet.Lease, error) {
			n++
			return changed, fmt.Errorf("attempt %d", n)
		})
		if err != nil || n < 60 || n > 900 || h.write == nil {
			t.Errorf("%d attempts, %v", n, err)
		}
		if got := len(kept.entries); got == 0 || got > 20 {
			t.Errorf("%d lines", got)
		}
	})
}

// TestRetryAfterIsObeyed: a server that wants not to be asked for a minute is not, although all attempts fail.
func TestRetryAfterIsObeyed(t *testing.T) {
	f := standIn(t, true)
	f.standIn.Reject(1, 429, 60)
	_, rejected := f.open(t, "one").Claim(t.Context(), nil, wanted("one"))
	if apiserver.RetryAfter(rejected) != time.Minute {
		t.Fatal(rejected)
	}
	synctest.Test(t, func(t *testing.T) {
		w, _ := idleWatcher(t)
		few := func(what string, n int, err error) {
			t.Helper()
			if err != nil || n < 30 || n > 61 {
				t.Errorf("%s: %d attempts in an hour, %v", what, n, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := 0
		err := w.run(ctx, func(context.Context) error { n++; return rejected })
		few("watch", n, err)
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n = 0
		err = w.holdOn(ctx, &hold{}, nil, func(_ context.Context, _ *hold, c <-chan subnet.Lease, _ *outage.Outage) (
			<-chan subnet.Lease, error) {
			n++
			return c, rejected
		})
		few("hold", n, err)
	})
}

// TestRefusal: an error of the callback ends a Watch, also while that waits.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := idleWatcher(t)
		enough := errors.New("enough")
		w.synced, w.conf.known = true, true
		w.conf.path = t.TempDir()
		w.conf.data = []byte("{}")
		w.conf.path += "/none"
		w.changed = func(e subnet.Event) error {
			if !e.ConfigSet || e.Config != nil {
				t.Errorf("the event is %+v", e)
			}
			return enough
		}
		w.conf.changed <- struct{}{}
		err := w.run(t.Context(), func(context.Context) error { return errors.New("down") })
		if !errors.Is(err, enough) || strings.Contains(err.Error(), "down") {
			t.Errorf("it ended with %v", err)
		}
	})
}
