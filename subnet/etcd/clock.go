package etcd

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// clockAhead is how far an endpoint's clock is ahead of ours. etcd's API returns no time; but it answers HTTP on the
// same port, to /version without authentication, and each answer has a date (RFC 9110, section 6.6.1). nil: it does
// not, as with --listen-client-http-urls.
func (s *Store) clockAhead(ctx context.Context, url string) *time.Duration {
	transport := &http.Transport{DisableKeepAlives: true}
	if s.opts.secure() {
		c, err := newCertificates(s.opts)
		if err != nil {
			return nil // the endpoint reports that as well
		}
		if transport.TLSClientConfig, err = c.config(); err != nil {
			return nil
		}
	}
	ahead, err := askClock(ctx, &http.Client{Transport: transport}, url+"/version")
	if err != nil {
		return nil
	}
	return &ahead
}

// askClock requests a date. It is in whole seconds, so that the result is exact to half a second and half of the round
// trip.
func askClock(ctx context.Context, client *http.Client, url string) (ahead time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	took := time.Since(began)
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("%s returns no date: %w", url, err)
	}
	return date.Add(time.Second / 2).Sub(began.Add(took / 2)), nil
}
