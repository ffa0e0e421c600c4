package etcd

import (
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// authority signs certificates.
type authority struct {
	t *testing.T
	*certs.Authority
}

func newAuthority(t *testing.T, dir, name string) authority {
	t.Helper()
	return authority{t, must[*certs.Authority](t)(certs.New(dir, name))}
}

// sign writes a certificate and its key, for a loopback server and for a client, into files that start with path.
func (a authority) sign(path string, change func(*x509.Certificate)) (certFile, keyFile string) {
	a.t.Helper()
	name := func(c *x509.Certificate) { c.Subject.CommonName = "etcd" }
	if err := a.Sign(path, name, certs.For("127.0.0.1"), change); err != nil {
		a.t.Fatal(err)
	}
	return path + ".pem", path + ".key"
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func otherName(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"etcd.example"} }

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
	certFile, keyFile := ours.sign(filepath.Join(dir, "server"), nil)
	clientCert, clientKey := ours.sign(filepath.Join(dir, "client"), nil)
	foreignCert, foreignKey := theirs.sign(filepath.Join(dir, "foreign"), nil)
	oldCert, oldKey := ours.sign(filepath.Join(dir, "old"), expired)
	oldServer, oldServerKey := ours.sign(filepath.Join(dir, "old-server"), expired)
	misnamed, misnamedKey := ours.sign(filepath.Join(dir, "misnamed"), otherName)

	plain := shared.server
	trusting := server(t, etcdserver.Options{CertFile: certFile, KeyFile: keyFile})
	strict := server(t, etcdserver.Options{CertFile: certFile, KeyFile: keyFile, ClientCAFile: ours.File})
	stale := server(t, etcdserver.Options{CertFile: oldServer, KeyFile: oldServerKey})
	other := server(t, etcdserver.Options{CertFile: misnamed, KeyFile: misnamedKey})

	for _, c := range []struct {
		name   string
		server *etcdserver.Server
		scheme string
		opts   Options
		want   string // of the error; empty: none
	}{
		{"authority only", trusting, "https", Options{CAFile: ours.File}, ""},
		{"no scheme", trusting, "", Options{CAFile: ours.File}, ""},
		{"client certificate", strict, "https", Options{CAFile: ours.File, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"client certificate that nobody wants", trusting, "https", Options{CAFile: ours.File, CertFile: foreignCert, KeyFile: foreignKey}, ""},
		{"wrong authority", trusting, "https", Options{CAFile: theirs.File}, "check the CA file"},
		{"no authority", trusting, "https", Options{}, "check the CA file"},
		{"server's certificate expired", stale, "https", Options{CAFile: ours.File}, "etcd's certificate has expired or is not valid yet"},
		{"server's certificate for another name", other, "https", Options{CAFile: ours.File}, "etcd's certificate is for another name"},
		{"no client certificate", strict, "https", Options{CAFile: ours.File}, "etcd requires a client certificate"},
		{"client certificate of another authority", strict, "https", Options{CAFile: ours.File, CertFile: foreignCert, KeyFile: foreignKey}, "etcd rejected our client certificate"},
		{"client certificate expired", strict, "https", Options{CAFile: ours.File, CertFile: oldCert, KeyFile: oldKey}, "our client certificate because it has expired"},
		{"http to https", trusting, "http", Options{}, "use https"},
		{"https to http", plain, "https", Options{CAFile: ours.File}, "use http in the endpoints"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, host, _ := strings.Cut(c.server.Endpoint(), "://")
			c.opts.Endpoints = []string{host}
			if c.scheme != "" {
				c.opts.Endpoints[0] = c.scheme + "://" + host
			}
			c.opts.Prefix = "/" + rand.Text()
			r, err := open(t, c.opts).Claim(t.Context(), nil, lease(1, "a"))
			switch {
			case c.want == "" && (err != nil || r.LeaseID == 0):
				t.Errorf("claimed %+v, %v", r, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("the error is\n     %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestCertificatesAreReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	serverCert, serverKey := ca.sign(filepath.Join(dir, "server"), nil)
	clientCert, clientKey := ca.sign(filepath.Join(dir, "client"), nil)
	etcd := server(t, etcdserver.Options{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ca.File})
	log, kept := logger(t)
	o := Options{Endpoints: []string{etcd.Endpoint()}, CAFile: ca.File, CertFile: clientCert, KeyFile: clientKey, Log: log, retryLast: retryFirst}
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	w.Synced(1)

	// Everything anew, the authority too, but for the client's certificate, which is late.
	ca = newAuthority(t, dir, "ca")
	ca.sign(filepath.Join(dir, "server"), nil)
	restart(t, etcd)
	testctx.Eventually(t, func() string {
		if len(kept.said("rejected our client certificate")) == 0 {
			return "word that the certificate is not accepted"
		}
		return ""
	})
	if err := os.Remove(clientKey); err != nil {
		t.Fatal(err)
	}
	testctx.Eventually(t, func() string {
		if len(kept.said("the files for TLS cannot be used")) == 0 {
			return "word that the key is missing"
		}
		return ""
	})
	ca.sign(filepath.Join(dir, "client"), nil)
	testctx.Eventually(t, func() string {
		if !s.Outage().Since.IsZero() {
			return "the end of the outage"
		}
		return ""
	})
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if state := w.Reached(r.Version); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
}
