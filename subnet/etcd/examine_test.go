package etcd

import (
	"crypto/x509"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
)

// nobody is a port where nothing listens: it is reserved, and this machine's.
const nobody = "http://127.0.0.1:1"

func TestExamine(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	s := open(t, Options{Endpoints: []string{etcd.Endpoint(), nobody}, Prefix: testPrefix})
	x := s.Examine(t.Context())
	if x.Rights.Err != nil || len(x.Endpoints) != 2 || !x.CertificateEnds.IsZero() {
		t.Fatalf("%+v, want two endpoints and all rights", x)
	}
	if e := x.Endpoints[0]; e.Problem.Err != nil || e.URL != etcd.Endpoint() || !strings.HasPrefix(e.Version, "3.") || !e.Leader || e.Learner ||
		e.Latency <= 0 || len(e.Alarms) > 0 || !e.CertificateEnds.IsZero() || e.ClockAhead == nil || e.ClockAhead.Abs() > time.Minute {
		t.Errorf("%+v, want one that is well", e)
	}
	if e := x.Endpoints[1]; e.Problem.Reason != subnet.ReasonRefused || !strings.HasPrefix(e.Problem.Err.Error(), "nothing listens at "+nobody+": check the endpoints, and that etcd runs") {
		t.Errorf("%+v, want that nothing listens there", e)
	}

	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	must[*pb.AlarmResponse](t)(pb.NewMaintenanceClient(admin(t, etcd.Endpoint()).ActiveConnection()).Alarm(t.Context(), alarm))
	if e := s.Examine(t.Context()).Endpoints[0]; len(e.Alarms) != 1 || e.Alarms[0].Reason != subnet.ReasonNoSpace ||
		!strings.Contains(e.Alarms[0].Err.Error(), "NOSPACE") {
		t.Errorf("%+v, want NOSPACE", e.Alarms)
	}
}

func TestExamineRights(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	access(t, admin(t, etcd.Endpoint()), secret, map[string][]permission{
		"selvage": {readConfig, allSubnets},
		"reader":  {readConfig, readSubnets},
	})
	grant := [][]string{{"etcdctl", "role", "grant-permission", "ROLE", "--prefix=true", "readwrite", "/net/subnets/"}}
	for _, c := range []struct {
		user, password string
		reason         subnet.Reason
		commands       [][]string
		want           string
	}{
		{"selvage", secret, "", nil, ""},
		{"selvage", "*******", subnet.ReasonUnauthenticated, nil, `etcd rejected the password of user "selvage"`},
		{"reader", secret, subnet.ReasonForbidden, grant, "it lacks write on the prefix /net/subnets/. "},
	} {
		s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: c.user, Password: c.password})
		x := s.Examine(t.Context())
		if e := x.Endpoints[0]; (e.Problem.Err != nil) != (c.password != secret) { // etcd tells strangers nothing
			t.Errorf("%s: %v", c.user, e.Problem.Err)
		}
		if r := x.Rights; r.Reason != c.reason || !reflect.DeepEqual(r.Commands, c.commands) || r.Reason.AboutUser() != (c.want != "") ||
			r.Err != nil && !strings.Contains(r.Err.Error(), c.want) {
			t.Errorf("%s: %+v, want %q", c.user, r, c.want)
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
	if e := x.Endpoints[0]; e.Problem.Err != nil || e.ClockAhead == nil || !e.CertificateEnds.Equal(theirEnd) || !x.CertificateEnds.Equal(ourEnd) {
		t.Errorf("%+v, want certificates until %s and %s", x, theirEnd, ourEnd)
	}
	bare := open(t, Options{Endpoints: []string{etcd.Endpoint()}, CAFile: ours.File}).Examine(t.Context())
	if e := bare.Endpoints[0]; e.Problem.Reason != subnet.ReasonNoClientCertificate || !strings.Contains(e.Problem.Err.Error(), "etcd requires a client certificate") {
		t.Errorf("%+v, want that a certificate is missing", e)
	}
}
