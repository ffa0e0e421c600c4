package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// patience is how long a test waits for what must happen soon.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	stop, err := startReal()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/selvage-net/selvage/dist/lab/child.Start.func1"), goleak.Cleanup(func(code int) {
		stop()
		os.Exit(code)
	}))
}

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
func (a authority) sign(path string, changes ...func(*x509.Certificate)) (certFile, keyFile string) {
	a.t.Helper()
	if err := a.Sign(path, append([]func(*x509.Certificate){certs.For("127.0.0.1")}, changes...)...); err != nil {
		a.t.Fatal(err)
	}
	return path + ".pem", path + ".key"
}

// must fails the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// standIn starts a stand-in.
func standIn(t *testing.T, o kubetest.Options) *kubetest.Server {
	t.Helper()
	s := kubetest.New(o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// open opens a client.
func open(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Log == nil {
		log := logrus.New()
		log.SetOutput(t.Output())
		o.Log = log
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// write writes a file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// trusting is a client of net/http that trusts an authority.
func trusting(t *testing.T, caFile string) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(caFile)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
