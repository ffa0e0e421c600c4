package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(dir, name+".pem")}
	template := certificate(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, key := a.make(template)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.write(a.file, "CERTIFICATE", der)
	return a
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// make makes a certificate that is signed by the authority, or by itself if it is to be that one's.
func (a *authority) make(template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		parent, signer := a.cert, a.key
		if parent == nil {
			parent, signer = template, key
		}
		der, err = x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// sign writes name.pem and name-key.pem into a directory.
func (a *authority) sign(dir, name string, template *x509.Certificate) {
	a.t.Helper()
	der, key := a.make(template)
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(filepath.Join(dir, name+".pem"), "CERTIFICATE", der)
	a.write(filepath.Join(dir, name+"-key.pem"), "EC PRIVATE KEY", text)
}

// TestDoctorCertificates: etcd over TLS, whose certificates are replaced by wrong ones while a node runs. Each side reads its files again
// for each connection.
func TestDoctorCertificates(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	p := admit(t, l, l.Nodes()[0])
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
	const host = "172.31.0.1"
	member := func(change func(*x509.Certificate)) *x509.Certificate {
		c := certificate("etcd")
		c.IPAddresses = []net.IP{net.ParseIP(host)}
		if change != nil {
			change(c)
		}
		return c
	}
	well := func() { ours.sign(dir, "server", member(nil)); ours.sign(dir, "node", certificate("node")) }
	well()
	etcd, err := etcdserver.Start(t.Context(), etcdserver.Options{
		Binary: filepath.Join(bin, "etcd"), Dir: dir, Host: host, CertFile: file("server.pem"), KeyFile: file("server-key.pem"), ClientCAFile: ours.file,
	})
	p.must(err)
	t.Cleanup(etcd.Kill)
	p.must(putConfig(t.Context(), etcd.Endpoint(), dir, ours))

	// The daemon of the lab is told of an etcd without TLS, so another takes its place.
	p.stop()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	program, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	p.must(err)
	go func() {
		ended <- p.Exec(ctx, []string{program, "--iface=eth0", "--etcd-endpoints=" + etcd.Endpoint(), "--etcd-cafile=" + ours.file,
			"--etcd-certfile=" + file("node.pem"), "--etcd-keyfile=" + file("node-key.pem")}, lab.Stdio{})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	p.healthy()

	at := etcd.Endpoint()[len("https://"):]
	server := func(a *authority, change func(*x509.Certificate)) func() {
		return func() { a.sign(dir, "server", member(change)) }
	}
	client := func(a *authority, change func(*x509.Certificate)) func() {
		return func() {
			c := certificate("node")
			if change != nil {
				change(c)
			}
			a.sign(dir, "node", c)
		}
	}
	ends := func(after time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(after) }
	}
	const newFile = "give --etcd-certfile and --etcd-keyfile a certificate that etcd's --trusted-ca-file signed"
	p.treat([]ailment{
		{"of another authority", server(theirs, nil), well, one("etcd", failure, "etcd's certificate is not signed by an authority we trust",
			"give --etcd-cafile the authority that signed it: openssl s_client -connect "+at+" </dev/null names it")},
		{"of another name", server(ours, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("192.0.2.1")} }), well,
			one("etcd", failure, "etcd's certificate is for another name", "openssl s_client -connect "+at+
				" </dev/null | openssl x509 -noout -ext subjectAltName shows its names: give --etcd-endpoints one of them")},
		{"that has ended", server(ours, ends(-time.Hour)), well,
			one("etcd", failure, "etcd's certificate is not valid today", "renew it there; or set this machine's clock, if date shows that that is wrong")},
		{"that ends soon", server(ours, ends(72*time.Hour)), well,
			one("etcd", warns, "the certificate of "+etcd.Endpoint()+" ends at ", "renew it; selvaged reads it anew at each connection")},
		{"the node's, of another authority", client(theirs, nil), well, one("etcd", failure, "etcd does not accept our client certificate", newFile)},
		{"the node's, that has ended", client(ours, ends(-time.Hour)), well, []symptom{
			{"etcd", failure, "selvaged's own certificate for etcd ended at ", "renew it, or set this machine's clock"},
			{"etcd", failure, "etcd says that our client certificate has expired", "renew the file of --etcd-certfile, which is read again at each connection"},
		}},
	})
	p.healthy()
}

// putConfig writes the network config into an etcd that wants certificates.
func putConfig(ctx context.Context, endpoint, dir string, a *authority) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "node.pem"), filepath.Join(dir, "node-key.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err = client.Put(ctx, "/coreos.com/network/config", lab.DefaultConfig); err != nil {
		return errors.Join(err, fmt.Errorf("write the network config to %s", endpoint))
	}
	return nil
}
