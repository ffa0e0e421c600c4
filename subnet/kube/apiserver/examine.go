package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// version returns the server's version, and its answer.
func (c *Client) version(ctx context.Context) (text string, answer *http.Response, err error) {
	const path = "/version"
	a, err := c.send(ctx, request{verb: "GET", method: http.MethodGet, path: path, accept: jsonType})
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			answer = e.answer
		}
		return "", answer, err
	}
	defer a.Close()
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, a.response.Body, maxStatus)).Decode(&v); err != nil {
		return "", nil, c.explain(fmt.Errorf("%w: GET %s: %w", ErrMalformed, path, err))
	}
	return shorten(v.GitVersion), a.response, nil
}

// Version returns the server's version, such as "v1.34.4". Everyone may ask for it, in most clusters.
func (c *Client) Version(ctx context.Context) (string, error) {
	text, _, err := c.version(ctx)
	return text, err
}

// Examine asks the server, on a connection of its own, for its version, certificate and clock. The version stays empty
// if it is not for us, or for strangers, to know: whether the credentials are right is another question.
func (c *Client) Examine(ctx context.Context) subnet.EndpointReport {
	e := subnet.EndpointReport{URL: c.config.url.String()}
	own := &Client{
		opts: c.opts, config: c.config, vault: c.vault, decoder: c.decoder,
		connections: newConnections(), meter: newMeter(),
	}
	own.transport = own.newTransport()
	defer own.Close()
	if _, _, err := own.version(ctx); err != nil && !ProblemOf(err).Reason.AboutUser() { // this one connects
		e.Problem = ProblemOf(err)
		return e
	}
	began := time.Now()
	text, answer, err := own.version(ctx)
	if p := ProblemOf(err); err != nil && (answer == nil || !p.Reason.AboutUser()) {
		e.Problem = p
		return e
	}
	took := time.Since(began)
	e.Version, e.Latency = text, took
	if state := answer.TLS; state != nil && len(state.PeerCertificates) > 0 {
		e.CertificateEnds = state.PeerCertificates[0].NotAfter
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		// In whole seconds (RFC 9110, section 6.6.1): exact to half a second and half of the round trip.
		ahead := date.Add(time.Second / 2).Sub(began.Add(took / 2))
		e.ClockAhead = &ahead
	}
	return e
}

// CertificateEnds is the end of our own certificate; zero: none is used.
func (c *Client) CertificateEnds() (end time.Time) {
	if cert := c.vault.get().cert; cert != nil && cert.Leaf != nil {
		end = cert.Leaf.NotAfter
	}
	return end
}
