package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/mesh/exchange"
)

// pageFiles makes a certificate for 127.0.0.1, of an authority of its own.
func pageFiles(t *testing.T) exchange.Files {
	t.Helper()
	dir := t.TempDir()
	ca, err := certs.New(dir, "ca")
	if err == nil {
		err = ca.Sign(filepath.Join(dir, "page"), certs.For("127.0.0.1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return exchange.Files{CA: ca.File, Cert: filepath.Join(dir, "page.pem"), Key: filepath.Join(dir, "page.key")}
}

// TestServeAddress: plain HTTP is served on loopback addresses only, and TLS to holders of certificates only.
func TestServeAddress(t *testing.T) {
	files := pageFiles(t)
	for _, tt := range []struct {
		address string
		files   exchange.Files
		want    string // in the error; empty: it listens
	}{
		{":0", exchange.Files{}, ""}, {"localhost:0", exchange.Files{}, ""}, {"127.0.0.5:0", exchange.Files{}, ""}, {"[::1]:0", exchange.Files{}, ""},
		{"0.0.0.0:0", exchange.Files{}, "--serve-cafile"}, {"[::]:0", exchange.Files{}, "every host"}, {"192.0.2.1:8474", exchange.Files{}, "127.0.0.1:8474"},
		{"node1:8474", exchange.Files{}, "every host"}, {"8474", exchange.Files{}, "127.0.0.1:8474"}, {":x", exchange.Files{}, "--serve"},
		{"0.0.0.0:0", files, ""}, {":0", files, ""}, {"0.0.0.0:0", exchange.Files{Cert: files.Cert, Key: files.Key}, "need each other"},
		{"0.0.0.0:0", exchange.Files{CA: "/nowhere", Cert: files.Cert, Key: files.Key}, "--serve-cafile"},
		{"0.0.0.0:0", exchange.Files{CA: files.Key, Cert: files.Cert, Key: files.Key}, "holds no PEM certificate"},
		{"0.0.0.0:0", exchange.Files{CA: files.CA, Cert: files.CA, Key: files.Key}, "--serve-certfile"},
	} {
		l, secure, err := meshPage{tt.address, tt.files}.listen()
		if err == nil {
			if host := l.Addr().String(); secure == nil && !strings.HasPrefix(host, "127.0.0.") && !strings.HasPrefix(host, "[::1]") {
				t.Errorf("%s: plain HTTP on %s", tt.address, host)
			}
			_ = l.Close()
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %+v: %v, want %q", tt.address, tt.files, err, tt.want)
		}
	}
}

// TestServeTLS: a client without a certificate of the authority gets nothing.
func TestServeTLS(t *testing.T) {
	files, theirs := pageFiles(t), pageFiles(t)
	ctx, cancel := context.WithCancel(context.Background())
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- meshPage{"127.0.0.1:0", files}.serve(ctx, out, func(context.Context) (mesh.Cluster, error) { return labMesh(), nil }, nil)
	}()
	line := make([]byte, 200)
	n, err := said.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(string(line[:n]), "serving ")
	url, _, _ = strings.Cut(url, " ")
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for name, own := range map[string]exchange.Files{"": files, "none": {}, "of another authority": theirs} {
		config := &tls.Config{RootCAs: roots}
		if own.Cert != "" {
			cert, err := tls.LoadX509KeyPair(own.Cert, own.Key)
			if err != nil {
				t.Fatal(err)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		r, err := client.Get(url)
		if err == nil {
			_ = r.Body.Close()
		}
		if (err == nil) != (name == "") {
			t.Errorf("a certificate %s: %v, %v", name, r, err)
		}
		client.CloseIdleConnections()
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
