package etcd

import (
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// nobody is a port where nothing listens: it is reserved, and this machine's.
const nobody = "http://127.0.0.1:1"

func TestExamine(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	s := open(t, Options{Endpoints: []string{etcd.Endpoint(), nobody}, Prefix: testPrefix})
	x := s.Examine(t.Context())
	if x.Rights != nil || len(x.Endpoints) != 2 || !x.CertificateEnds.IsZero() {
		t.Fatalf("%+v, want two endpoints and all rights", x)
	}
	if e := x.Endpoints[0]; e.Err != nil || e.URL != etcd.Endpoint() || !strings.HasPrefix(e.Version, "3.") || !e.Leader || e.Learner ||
		e.Latency <= 0 || len(e.Problems) > 0 || !e.CertificateEnds.IsZero() || e.ClockAhead == nil || e.ClockAhead.Abs() > time.Minute {
		t.Errorf("%+v, want one that is well", e)
	}
	if e := x.Endpoints[1]; e.Err == nil || !strings.HasPrefix(e.Err.Error(), "nothing listens at "+nobody+": check the endpoints, and that etcd runs") {
		t.Errorf("%+v, want that nothing listens there", e)
	}

	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	must[*pb.AlarmResponse](t)(pb.NewMaintenanceClient(admin(t, etcd.Endpoint()).ActiveConnection()).Alarm(t.Context(), alarm))
	if e := s.Examine(t.Context()).Endpoints[0]; len(e.Problems) != 1 || !strings.Contains(e.Problems[0], "NOSPACE") {
		t.Errorf("%q, want NOSPACE", e.Problems)
	}
}

func TestExamineRights(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	access(t, admin(t, etcd.Endpoint()), secret, map[string][]permission{
		"selvage": {readConfig, allSubnets},
		"reader":  {readConfig, readSubnets},
	})
	for _, c := range []struct{ user, password, want string }{
		{"selvage", secret, ""},
		{"selvage", "*******", `does not know user "selvage" by the password given`},
		{"reader", secret, "it lacks write on the prefix /net/subnets/. "},
	} {
		s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: c.user, Password: c.password})
		x := s.Examine(t.Context())
		if e := x.Endpoints[0]; (e.Err != nil) != (c.password != secret) { // etcd tells strangers nothing
			t.Errorf("%s: %v", c.user, e.Err)
		}
		if c.want == "" != (x.Rights == nil) || x.Rights != nil && !strings.Contains(x.Rights.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.user, x.Rights, c.want)
		}
	}
}

func TestExamineCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := newAuthority(t, dir, "ours")
	until := func(end time.Time) func(*x509.Certificate) { return func(c *x509.Certificate) { c.NotAfter = end } }
	theirEnd, ourEnd := time.Now().Add(2*time.Hour).Truncate(time.Second), time.Now().Add(3*time.Hour).Truncate(time.Second)
	certFile, keyFile := ours.sign(filepath.Join(dir, "server"), until(theirEnd))
	clientCert, clientKey := ours.sign(filepath.Join(dir, "client"), until(ourEnd))
	etcd := server(t, etcdserver.Options{CertFile: certFile, KeyFile: keyFile, ClientCAFile: ours.File})
	x := open(t, Options{Endpoints: []string{etcd.Endpoint()}, CAFile: ours.File, CertFile: clientCert, KeyFile: clientKey}).Examine(t.Context())
	if e := x.Endpoints[0]; e.Err != nil || e.ClockAhead == nil || !e.CertificateEnds.Equal(theirEnd) || !x.CertificateEnds.Equal(ourEnd) {
		t.Errorf("%+v, want certificates until %s and %s", x, theirEnd, ourEnd)
	}
	bare := open(t, Options{Endpoints: []string{etcd.Endpoint()}, CAFile: ours.File}).Examine(t.Context())
	if e := bare.Endpoints[0]; e.Err == nil || !strings.Contains(e.Err.Error(), "etcd wants a client certificate") {
		t.Errorf("%+v, want that a certificate is missing", e)
	}
}
