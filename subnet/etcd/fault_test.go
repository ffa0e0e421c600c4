package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	unavailable := func(text string) error {
		return status.Error(codes.Unavailable, `connection error: desc = "transport: `+text+`"`)
	}
	for _, c := range []struct {
		reason subnet.Reason
		err    error
		want   string
	}{
		{subnet.ReasonUnauthenticated, rpctypes.ErrGRPCAuthFailed, `rejected the password of user "selvage": check`},
		{subnet.ReasonUnauthenticated, rpctypes.ErrAuthFailed, `check the user name and the password`},
		{subnet.ReasonAnonymous, rpctypes.ErrUserEmpty, "give a user name and a password"},
		{subnet.ReasonForbidden, rpctypes.ErrPermissionDenied, `etcd denied user "selvage" access: its role needs read on /net/config, and readwrite on the prefix /net/subnets/`},
		{subnet.ReasonForbidden, cancelled("rpc error: code = PermissionDenied desc = etcdserver: permission denied"), "readwrite on the prefix"},
		{subnet.ReasonTokenExpired, rpctypes.ErrInvalidAuthToken, "requesting a new token"},
		{subnet.ReasonNoSpace, rpctypes.ErrNoSpace, "etcdctl alarm disarm"},
		{subnet.ReasonNoLeader, rpctypes.ErrNoLeader, "look at its members"},
		{subnet.ReasonNoLeader, rpctypes.ErrLeaderChanged, "just changed its leader"},
		{subnet.ReasonNoLeader, rpctypes.ErrTimeout, "look at its members"},
		{subnet.ReasonCorrupt, rpctypes.ErrCorrupt, "reports corrupt data"},
		{subnet.ReasonOverloaded, rpctypes.ErrTooManyRequests, "overloaded"},
		{subnet.ReasonUntrustedCertificate, unavailable("authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"), "check the CA file"},
		{subnet.ReasonExpiredCertificate, unavailable("authentication handshake failed: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time …"), "renew it, or set this host's clock"},
		{subnet.ReasonWrongNameCertificate, unavailable("authentication handshake failed: tls: failed to verify certificate: x509: certificate is valid for etcd, not localhost"), "an endpoint that it names"},
		{subnet.ReasonWrongNameCertificate, unavailable("authentication handshake failed: tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"), "an endpoint that it names"},
		{subnet.ReasonNotTLS, unavailable("authentication handshake failed: tls: first record does not look like a TLS handshake"), "use http in the endpoints"},
		{subnet.ReasonExpiredClientCertificate, unavailable("error reading server preface: remote error: tls: expired certificate"), "our client certificate because it has expired"},
		{subnet.ReasonRejectedClientCertificate, unavailable("error reading server preface: remote error: tls: unknown certificate authority"), "rejected our client certificate"},
		{subnet.ReasonNoClientCertificate, unavailable("error reading server preface: remote error: tls: certificate required"), "requires a client certificate"},
		{subnet.ReasonNeedsTLS, unavailable("error reading server preface: http2: frame too large"), "use https in the endpoints"},
		{subnet.ReasonUnreadableFile, unavailable("authentication handshake failed: etcd CA file: open /x: no such file"), "files for TLS cannot be used"},
		{subnet.ReasonOldVersion, status.Error(codes.Unimplemented, "unknown service etcdserverpb.KV"), "no v3 API"},
		{subnet.ReasonOversized, status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), "a value under /net is too large"},
		{subnet.ReasonUnreadableFile, status.Error(codes.Unknown, errNoPassword.Error()+": open /x: no such file"), `the file with the password for user "selvage" cannot be used`},
		{subnet.ReasonNameNotResolved, unavailable("Error while dialing: dial tcp: lookup nowhere: no such host"), "cannot be resolved"},
		{subnet.ReasonRefused, unavailable("Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"), "nothing listens at http://a:1, http://b:1: check"},
		{subnet.ReasonUnreachable, unavailable("Error while dialing: dial tcp 10.0.0.1:1: i/o timeout"), "firewalls between"},
		{subnet.ReasonUnreachable, unavailable("Error while dialing: dial tcp 10.0.0.1:1: connect: no route to host"), "firewalls between"},
		{subnet.ReasonTimeout, context.DeadlineExceeded, "did not answer within 5s"},
		{subnet.ReasonTimeout, status.Error(codes.DeadlineExceeded, "context deadline exceeded"), "did not answer within 5s"},
		{subnet.ReasonNotTLS, unavailable("authentication handshake failed: EOF"), "use http in the endpoints"},
		{subnet.ReasonNeedsTLS, unavailable("error reading server preface: read tcp: connection reset by peer"), "use https in the endpoints"},
		{subnet.ReasonDisconnected, unavailable("read tcp 127.0.0.1:2->127.0.0.1:1: read: connection reset by peer"), "the connection to etcd at http://a:1, http://b:1 is broken"},
	} {
		o := Options{
			Endpoints: []string{"http://a:1", "http://b:1"}, Prefix: "/net", Username: "selvage", Password: "hunter2",
			RequestTimeout: 5 * time.Second,
		}
		for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err)} {
			got := o.explain(err)
			_, cause := describe(c.err)
			if !strings.Contains(got.Error(), c.want) || !strings.HasSuffix(got.Error(), "("+cause+")") {
				t.Errorf("%v\n gives %q\n want  %q and the cause", err, got, c.want)
			}
			if p := problemOf(fmt.Errorf("wrapped: %w", got)); p.Reason != c.reason {
				t.Errorf("%v is %q, want %q", err, p.Reason, c.reason)
			}
			if !errors.Is(got, c.err) {
				t.Errorf("%v is lost in %v", c.err, got)
			}
			if strings.Contains(got.Error(), "hunter2") {
				t.Errorf("the password is in %q", got)
			}
			if again := o.explain(fmt.Errorf("more: %w", got)); strings.Count(again.Error(), c.want) != 1 {
				t.Errorf("explained twice: %q", again)
			}
		}
	}
}

func TestErrorsThatSpeakForThemselvesStayAsTheyAre(t *testing.T) {
	for _, err := range []error{nil, rpctypes.ErrCompacted, rpctypes.ErrLeaseNotFound, errors.New("what"), context.Canceled} {
		if got := (Options{}).explain(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := (Options{}).explain(rpctypes.ErrPermissionDenied).Error(); !strings.Contains(got, "the user that the client certificate names") {
		t.Errorf("without a user name: %q", got)
	}
	if got := cancelled(""); got == nil || got.Error() == "" {
		t.Errorf("no reason gives %v", got)
	}
}

func TestUnsettledRequests(t *testing.T) {
	for err, want := range map[error]bool{
		status.Error(codes.Unavailable, "connection reset"): true,
		rpctypes.ErrTimeout:               true,
		rpctypes.ErrLeaderChanged:         true,
		context.DeadlineExceeded:          true,
		rpctypes.ErrPermissionDenied:      false,
		rpctypes.ErrLeaseNotFound:         false,
		rpctypes.ErrNoSpace:               false,
		errors.New("lease: not JSON"):     false,
		status.Error(codes.Internal, "x"): true,
	} {
		if got := unsettled(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}

func TestOutageIsSaidOnceAndItsEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, kept := logger(t)
		o := &outage.Outage{Log: log, Lost: "lost", Back: "back"}
		refused := func(host string) error {
			return (Options{}).explain(status.Error(codes.Unavailable, "dial tcp "+host+": connection refused"))
		}
		leaderless := (Options{}).explain(rpctypes.ErrNoLeader)
		failed := func(err error) { o.Failure(err, adviceOf(err)) }
		failed(refused("a"))
		time.Sleep(outage.After / 2)
		failed(leaderless)
		o.Over()
		if lines := kept.lines(); len(lines) != 0 {
			t.Errorf("half a second says %q", lines)
		}
		began := time.Now()
		failed(leaderless)
		time.Sleep(outage.After)
		for _, host := range []string{"a", "b", "a"} {
			failed(refused(host))
		}
		if since, cause := o.State(); !since.Equal(began) || cause == nil {
			t.Errorf("since %v because of %v", since, cause)
		}
		failed(leaderless)
		failed(refused("a"))
		failed(leaderless)
		o.Over()
		o.Over()
		lines := kept.lines()
		if len(lines) != 3 || !strings.HasPrefix(lines[0], "lost: nothing listens") || !strings.HasPrefix(lines[1], "lost: etcd has no leader") || lines[2] != "back" {
			t.Errorf("said %q", lines)
		}
		if since, cause := o.State(); !since.IsZero() || cause != nil {
			t.Errorf("after its end: since %v because of %v", since, cause)
		}
	})
}

func TestRetriesGetRarer(t *testing.T) {
	for _, quick := range []int{0, 4} {
		r := retry{last: retryLast, quick: quick}
		for range 3 {
			want := retryFirst
			for i := range 16 {
				if got := r.wait(); got < want/2 || got > want {
					t.Errorf("pause %d of %s, want up to %s", i, got, want)
				}
				if i >= quick {
					want = min(2*want, retryLast)
				}
			}
			r.reset()
		}
	}
}
