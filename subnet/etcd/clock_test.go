package etcd

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestAskClock asks clocks that are right and wrong. What a busy machine takes to answer is no fault of theirs.
func TestAskClock(t *testing.T) {
	t.Parallel()
	const patience = 30 * time.Second
	for _, off := range []time.Duration{0, time.Hour, -25 * time.Hour} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		}))
		defer server.Close()
		if got, err := askClock(t.Context(), server.Client(), server.URL); err != nil || (got-off).Abs() > patience {
			t.Errorf("%s, %v, want %s", got, err, off)
		}
	}
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil }))
	defer silent.Close()
	if got, err := askClock(t.Context(), silent.Client(), silent.URL); err == nil {
		t.Errorf("%s of one that tells no date", got)
	}
}
