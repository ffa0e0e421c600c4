package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/selvage-net/selvage/subnet"
)

// fault is an error of etcd or of the way to it, with what an operator can do about it.
type fault struct {
	reason   subnet.Reason
	advice   string
	commands [][]string // see [subnet.Problem]
	err      error
}

func (f *fault) Error() string { _, text := describe(f.err); return f.advice + " (" + text + ")" }
func (f *fault) Unwrap() error { return f.err }

// explain adds to an error of a request what it means and what to do. An error it has nothing to say about is returned
// as it is.
func (o Options) explain(err error) error {
	if err == nil || errors.As(err, new(*fault)) {
		return err
	}
	if reason, advice := o.advice(err); advice != "" {
		return &fault{reason: reason, advice: advice, err: err}
	}
	return err
}

// problemOf returns an error that explain has seen in neutral terms.
func problemOf(err error) subnet.Problem {
	if err == nil {
		return subnet.Problem{}
	}
	p := subnet.Problem{Reason: subnet.ReasonOther, Err: err}
	if f := (*fault)(nil); errors.As(err, &f) {
		p.Reason, p.Commands = f.reason, f.commands
	}
	return p
}

// adviceOf returns what an error that explain has seen says to do; errors of the same advice are of one kind.
func adviceOf(err error) string {
	if f := (*fault)(nil); errors.As(err, &f) {
		return f.advice
	}
	return ""
}

// advice returns what an error means, and what to do about it; nothing for one that speaks for itself.
func (o Options) advice(err error) (subnet.Reason, string) {
	code, text := describe(err)
	is := func(targets ...error) bool { // etcd's errors cross the wire as text
		for _, t := range targets {
			if text == rpctypes.ErrorDesc(t) {
				return true
			}
		}
		return false
	}
	user := o.user()
	where := strings.Join(o.Endpoints, ", ")
	says := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case is(rpctypes.ErrGRPCAuthFailed):
		return subnet.ReasonUnauthenticated,
			fmt.Sprintf("etcd rejected the password of %s: check the user name and the password", user)
	case is(rpctypes.ErrGRPCUserEmpty):
		return subnet.ReasonAnonymous,
			"etcd requires authentication: give a user name and a password, or a client certificate whose " +
				"common name is a user"
	case is(rpctypes.ErrGRPCPermissionDenied):
		// [Store.explain] finds out which of them is missing, if it still is.
		keys := newKeyspace(o.Prefix)
		return subnet.ReasonForbidden,
			fmt.Sprintf("etcd denied %s access: its role needs read on %s, and readwrite on the prefix %s",
				user, keys.config, keys.subnets)
	case is(rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision):
		return subnet.ReasonTokenExpired, "etcd's authentication has changed: requesting a new token"
	case is(rpctypes.ErrGRPCNoSpace):
		return subnet.ReasonNoSpace,
			"etcd's storage quota is exhausted: compact and defragment it, then disarm the alarm (etcdctl alarm disarm)"
	case is(rpctypes.ErrGRPCLeaderChanged):
		return subnet.ReasonNoLeader, "etcd has just changed its leader; retrying"
	case is(rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCTimeoutDueToLeaderFail,
		rpctypes.ErrGRPCTimeoutDueToConnectionLost, rpctypes.ErrGRPCTimeoutWaitAppliedIndex, rpctypes.ErrGRPCUnhealthy):
		return subnet.ReasonNoLeader,
			"etcd has no leader or is too slow: look at its members (etcdctl endpoint status --cluster)"
	case is(rpctypes.ErrGRPCCorrupt):
		return subnet.ReasonCorrupt, "etcd reports corrupt data: restore it or replace the member"
	case is(rpctypes.ErrGRPCRequestTooManyRequests):
		return subnet.ReasonOverloaded, "etcd is overloaded; retrying"
	case byEtcd(text):
		return "", ""

	// Handshakes fail inside gRPC, which hands on no more than text.
	case says("certificate signed by unknown authority"):
		return subnet.ReasonUntrustedCertificate,
			"etcd's certificate is not signed by a trusted authority: check the CA file"
	case says("x509: certificate has expired or is not yet valid"):
		return subnet.ReasonExpiredCertificate,
			"etcd's certificate has expired or is not valid yet: renew it, or set this host's clock"
	case says("x509: certificate is valid for", "x509: certificate is not valid for any names",
		"doesn't contain any IP SANs"):
		return subnet.ReasonWrongNameCertificate,
			"etcd's certificate is for another name: use an endpoint that it names, or add this name to it"
	case says("tls: expired certificate"):
		return subnet.ReasonExpiredClientCertificate,
			"etcd rejected our client certificate because it has expired: renew it"
	case says("tls: unknown certificate authority", "tls: bad certificate"):
		return subnet.ReasonRejectedClientCertificate,
			"etcd rejected our client certificate: use one that etcd's --trusted-ca-file signed"
	case says("tls: certificate required"):
		return subnet.ReasonNoClientCertificate,
			"etcd requires a client certificate: give a certificate file and a key file"
	case says("first record does not look like a TLS handshake", "authentication handshake failed: EOF"):
		return subnet.ReasonNotTLS,
			"the server does not speak TLS: if etcd is served without TLS, use http in the endpoints"
	case says("error reading server preface"):
		return subnet.ReasonNeedsTLS,
			"the server at " + where + " closes connections: if it requires TLS, use https in the endpoints"
	case says("etcd CA file", "etcd client certificate"):
		return subnet.ReasonUnreadableFile, "the files for TLS cannot be used"
	case says(errNoPassword.Error()):
		return subnet.ReasonUnreadableFile, "the file with the password for " + user + " cannot be used"

	case code == codes.Unimplemented:
		return subnet.ReasonOldVersion,
			fmt.Sprintf("the server at %s has no v3 API: etcd 3.4 or later is needed", where)
	case code == codes.ResourceExhausted:
		return subnet.ReasonOversized, "a value under " + o.Prefix + " is too large to be read: remove it"
	case says("no such host", "server misbehaving"):
		return subnet.ReasonNameNotResolved,
			"the name of an etcd endpoint cannot be resolved: check the endpoints and DNS (" + where + ")"
	case says("connection refused"):
		return subnet.ReasonRefused, "nothing listens at " + where + ": check the endpoints, and that etcd runs"
	case says("no route to host", "network is unreachable", "i/o timeout"):
		return subnet.ReasonUnreachable,
			"etcd is not reachable at " + where + ": check the endpoints, the network, and firewalls between"
	case code == codes.DeadlineExceeded:
		return subnet.ReasonTimeout, fmt.Sprintf("etcd at %s did not answer within %s", where, o.RequestTimeout)
	case code == codes.Unavailable:
		return subnet.ReasonDisconnected, "the connection to etcd at " + where + " is broken"
	}
	return "", ""
}

// describe returns the code and the text of an error as etcd or gRPC made it, without what was wrapped around it.
func describe(err error) (codes.Code, string) {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code(), answer.Error()
	}
	var rpc interface{ GRPCStatus() *status.Status }
	if errors.As(err, &rpc) {
		return rpc.GRPCStatus().Code(), rpc.GRPCStatus().Message()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded, context.DeadlineExceeded.Error()
	}
	return codes.Unknown, err.Error()
}

// byEtcd reports whether an error with this text is an answer of etcd's.
func byEtcd(text string) bool { return strings.HasPrefix(text, "etcdserver: ") }

// unsettled reports whether a request that failed with err may have been carried out all the same.
func unsettled(err error) bool {
	switch code, _ := describe(err); code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal:
		return true
	}
	return errors.Is(err, context.Canceled)
}

// oversized reports whether err means that the answer was larger than we take.
func oversized(err error) bool {
	if err == nil {
		return false
	}
	code, text := describe(err)
	return code == codes.ResourceExhausted && !byEtcd(text)
}
