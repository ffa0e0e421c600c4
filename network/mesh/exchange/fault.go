package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// errUnreadable is the error for an answer that is something else than what was asked for.
var errUnreadable = errors.New("this version cannot read the answer")

// statusError is the HTTP status of a refused request.
type statusError int

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }

// isAlert reports whether the server refused the TLS connection: what crypto/tls makes of an alert.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// codeOf returns why a node has given no summary.
func codeOf(err error) status.Reason {
	_, badServer := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	code, isStatus := errors.AsType[statusError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case badServer, errors.Is(err, errOtherKey):
		return mesh.BadCertificate
	case isAlert(err):
		return mesh.CertificateRefused
	case isStatus && (code == http.StatusUnauthorized || code == http.StatusForbidden):
		return mesh.TokenRefused
	case isStatus && (code == http.StatusBadGateway || code == http.StatusTooManyRequests):
		return mesh.TokenNotReviewed
	case isStatus && code == http.StatusNotFound:
		return mesh.NoDetail
	case isStatus && code == detailOff:
		return mesh.DetailOff
	case isStatus && code == http.StatusServiceUnavailable:
		return mesh.NotReadyYet
	case errors.Is(err, syscall.ECONNREFUSED):
		return mesh.NotListening
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isNet && timeout.Timeout():
		return mesh.NoAnswer
	case errors.Is(err, errUnreadable), isStatus, noTLS:
		return mesh.Unreadable
	}
	return mesh.NoAnswer
}

// reason returns the innermost error that says something to people.
func reason(err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}
