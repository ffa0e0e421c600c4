package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/selvage-net/selvage/subnet"
)

// answered returns the error for an answer that is no success, to a request with these credentials.
func (c *Client) answered(code int, s status, used credentials) *Error {
	e := &Error{Reason: subnet.ReasonOther, Code: code, Status: s.reason, RetryAfter: s.retryAfter}
	e.err = fmt.Errorf("HTTP status %d: %s", code, s.message)
	be := func(kind error) { e.err = fmt.Errorf("%w: %w", kind, e.err) }
	anonymous := used.token == "" && used.cert == nil
	switch {
	case code == http.StatusUnauthorized && anonymous, code == http.StatusForbidden && anonymous:
		e.Reason = subnet.ReasonAnonymous
		e.advice = "the API server requires credentials: give a kubeconfig file that has them, or run as a pod with " +
			"a service account"
	case code == http.StatusUnauthorized:
		e.Reason = subnet.ReasonUnauthenticated
		e.advice = "the API server rejected " + c.config.user.describe() + ": check that it is of this cluster and " +
			"has not expired or been revoked"
	case code == http.StatusForbidden && used.kubelet():
		e.Reason = subnet.ReasonForbidden
		e.advice = "the API server denied access: since Kubernetes 1.32 a kubelet's credentials may read its own " +
			"Node only; use those of a service account that has the ClusterRole of selvage's manifest"
	case code == http.StatusForbidden:
		e.Reason = subnet.ReasonForbidden
		e.advice = "the API server denied " + c.config.user.describe() + " access: give its user the ClusterRole of " +
			"selvage's manifest"
	case code == http.StatusTooManyRequests:
		e.Reason, e.advice = subnet.ReasonOverloaded, "the API server is overloaded; retrying"
	case s.tooLarge:
		be(ErrBehind)
	case code == http.StatusGone, s.reason == "Expired", s.reason == "Gone":
		be(ErrExpired)
	case s.reason == "NotFound":
		be(ErrNotFound)
	case code == http.StatusNotFound:
		e.Reason = subnet.ReasonOldVersion
		e.advice = "no API server of a supported version answers at " + c.config.url.String() + ": check its URL"
	case code == http.StatusUnprocessableEntity:
		be(ErrInvalid)
	case code == http.StatusConflict:
		be(ErrConflict)
	case code == http.StatusBadRequest && c.config.url.Scheme == "http" && strings.Contains(s.message, "HTTPS server"):
		// net/http, server.go: the answer of a TLS server to a request in the clear
		e.Reason, e.advice = subnet.ReasonNeedsTLS, "the API server requires TLS: use https in its URL"
	case code == http.StatusGatewayTimeout:
		e.Reason = subnet.ReasonTimeout
		e.advice = "the API server did not complete the request in time: look at its log and at its etcd"
	case code >= http.StatusInternalServerError:
		e.Reason = subnet.ReasonUnavailable
		e.advice = "the API server cannot serve the request: if that lasts, look at its log and at its etcd"
	}
	return e
}

// describe names what we show to the server, without its secrets.
func (u user) describe() string {
	switch {
	case u.tokenFile != "":
		return "the token in " + u.tokenFile
	case u.token != "":
		return "the token in the kubeconfig"
	case u.certFile != "":
		return "the client certificate " + u.certFile
	case len(u.certData) > 0:
		return "the client certificate in the kubeconfig"
	}
	return "a request without credentials"
}

// kubelet reports whether these are a kubelet's credentials.
func (c credentials) kubelet() bool {
	return c.cert != nil && c.cert.Leaf != nil && strings.HasPrefix(c.cert.Leaf.Subject.CommonName, "system:node:")
}

// explain adds to an error of the connection what it means and what to do.
func (c *Client) explain(err error) error {
	if err == nil || errors.As(err, new(*Error)) || errors.Is(err, ErrMalformed) {
		return err
	}
	reason, advice := c.connection(err)
	if broken := c.vault.failure(); broken != nil {
		// What was read before may be out of date.
		err = fmt.Errorf("%w; %w", err, broken)
		if reason == subnet.ReasonUntrustedCertificate || reason == subnet.ReasonRejectedClientCertificate {
			reason, advice = subnet.ReasonUnreadableFile, "the files for TLS cannot be read again"
		}
	}
	return &Error{Reason: reason, advice: advice, err: err}
}

// connection returns what an error of the connection means, and what to do about it.
func (c *Client) connection(err error) (subnet.Reason, string) {
	where := c.config.url.Host
	var (
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		name    *net.DNSError
		late    net.Error
	)
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return subnet.ReasonUntrustedCertificate,
			"the API server's certificate is not signed by a trusted authority: check the CA file"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return subnet.ReasonExpiredCertificate,
			"the API server's certificate has expired or is not valid yet: renew it, or set this host's clock"
	case errors.As(err, new(x509.HostnameError)):
		return subnet.ReasonWrongNameCertificate,
			"the API server's certificate is for another name: use a URL with a name that it has"
	case errors.As(err, &alert):
		return clientCertificate(uint8(alert))
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return subnet.ReasonNotTLS, "the server at " + where + " does not speak TLS: check the URL of the API server"
	case errors.As(err, &name):
		return subnet.ReasonNameNotResolved,
			"the name of the API server cannot be resolved: check its URL and DNS (" + where + ")"
	case errors.Is(err, syscall.ECONNREFUSED):
		return subnet.ReasonRefused, "nothing listens at " + where + ": check the URL, and that the API server runs"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), dialing(err):
		return subnet.ReasonUnreachable, "the API server is not reachable at " + where +
			": check its URL, the network, and firewalls between"
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &late) && late.Timeout():
		return subnet.ReasonTimeout, "the API server at " + where + " did not answer in time"
	}
	return subnet.ReasonDisconnected, "the connection to the API server at " + where + " is broken"
}

// dialing reports whether err is a timeout of an attempt to connect.
func dialing(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && op.Timeout()
}

// clientCertificate returns what an alert of TLS (RFC 8446, section 6.2) says of our certificate.
func clientCertificate(alert uint8) (subnet.Reason, string) {
	switch alert {
	case 45: // certificate_expired
		return subnet.ReasonExpiredClientCertificate,
			"the API server rejected our client certificate because it has expired: renew it"
	case 116: // certificate_required
		return subnet.ReasonNoClientCertificate,
			"the API server requires a client certificate: give a kubeconfig file that has one"
	case 42, 43, 44, 46, 48: // bad, unsupported, revoked, unknown certificate, unknown authority
		return subnet.ReasonRejectedClientCertificate,
			"the API server rejected our client certificate: use one that its --client-ca-file signed"
	}
	return subnet.ReasonDisconnected, "the API server ended the TLS handshake"
}
