package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own certificate
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), file: filepath.Join(dir, name+".pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sign writes a certificate and its key, for a loopback server and for a client, into files that start with path.
func (a *authority) sign(path string, change func(*x509.Certificate)) (certFile, keyFile string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "etcd"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = path+".crt", path+".key"
	writePEM(a.t, certFile, "CERTIFICATE", der)
	writePEM(a.t, keyFile, "PRIVATE KEY", pkcs8)
	return certFile, keyFile
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
	strict := server(t, etcdserver.Options{CertFile: certFile, KeyFile: keyFile, ClientCAFile: ours.file})
	stale := server(t, etcdserver.Options{CertFile: oldServer, KeyFile: oldServerKey})
	other := server(t, etcdserver.Options{CertFile: misnamed, KeyFile: misnamedKey})

	for _, c := range []struct {
		name   string
		server *etcdserver.Server
		scheme string
		opts   Options
		want   string // of the error; empty: none
	}{
		{"authority only", trusting, "https", Options{CAFile: ours.file}, ""},
		{"no scheme", trusting, "", Options{CAFile: ours.file}, ""},
		{"client certificate", strict, "https", Options{CAFile: ours.file, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"client certificate that nobody wants", trusting, "https", Options{CAFile: ours.file, CertFile: foreignCert, KeyFile: foreignKey}, ""},
		{"wrong authority", trusting, "https", Options{CAFile: theirs.file}, "check the CA file"},
		{"no authority", trusting, "https", Options{}, "check the CA file"},
		{"server's certificate expired", stale, "https", Options{CAFile: ours.file}, "etcd's certificate is not valid today"},
		{"server's certificate for another name", other, "https", Options{CAFile: ours.file}, "etcd's certificate is for another name"},
		{"no client certificate", strict, "https", Options{CAFile: ours.file}, "etcd wants a client certificate"},
		{"client certificate of another authority", strict, "https", Options{CAFile: ours.file, CertFile: foreignCert, KeyFile: foreignKey}, "etcd does not accept our client certificate"},
		{"client certificate expired", strict, "https", Options{CAFile: ours.file, CertFile: oldCert, KeyFile: oldKey}, "our client certificate has expired"},
		{"http to https", trusting, "http", Options{}, "use https"},
		{"https to http", plain, "https", Options{CAFile: ours.file}, "use http in the endpoints"},
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
	etcd := server(t, etcdserver.Options{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ca.file})
	log, kept := logger(t)
	o := Options{Endpoints: []string{etcd.Endpoint()}, CAFile: ca.file, CertFile: clientCert, KeyFile: clientKey, Log: log, retryLast: retryFirst}
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	w.Synced(1)

	// Everything anew, the authority too, but for the client's certificate, which is late.
	ca = newAuthority(t, dir, "ca")
	ca.sign(filepath.Join(dir, "server"), nil)
	restart(t, etcd)
	eventually(t, func() string {
		if len(kept.said("does not accept our client certificate")) == 0 {
			return "word that the certificate is not accepted"
		}
		return ""
	})
	if err := os.Remove(clientKey); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if len(kept.said("the files for TLS cannot be used")) == 0 {
			return "word that the key is missing"
		}
		return ""
	})
	ca.sign(filepath.Join(dir, "client"), nil)
	eventually(t, func() string {
		if since, _ := s.Outage(); !since.IsZero() {
			return "the end of the outage"
		}
		return ""
	})
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if state := w.Reached(r.Modified); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
}
