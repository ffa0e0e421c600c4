package e2e

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// TestDoctorCertificates: etcd over TLS, whose certificates are replaced by wrong ones while a node runs. Each side reads its files again
// for each connection.
func TestDoctorCertificates(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	p := admit(t, l, l.Nodes()[0])
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ours, err := certs.New(dir, "ours")
	p.must(err)
	theirs, err := certs.New(dir, "theirs")
	p.must(err)
	const host = "172.31.0.1"
	server := func(a *certs.Authority, change func(*x509.Certificate)) func() {
		return func() { p.must(a.Sign(file("server"), certs.For(host), change)) }
	}
	client := func(a *certs.Authority, change func(*x509.Certificate)) func() {
		return func() { p.must(a.Sign(file("node"), change)) }
	}
	well := func() { server(ours, nil)(); client(ours, nil)() }
	well()
	etcd, err := etcdserver.Start(t.Context(), etcdserver.Options{
		Binary: filepath.Join(bin, "etcd"), Dir: dir, Host: host, CertFile: file("server.pem"), KeyFile: file("server.key"), ClientCAFile: ours.File,
	})
	p.must(err)
	t.Cleanup(etcd.Kill)
	p.must(putConfig(t.Context(), etcd.Endpoint(), ours.File, file("node")))

	// The daemon of the lab is told of an etcd without TLS, so another takes its place.
	p.stop()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	program, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	p.must(err)
	go func() {
		ended <- p.Exec(ctx, []string{program, "--iface=eth0", "--etcd-endpoints=" + etcd.Endpoint(), "--etcd-cafile=" + ours.File,
			"--etcd-certfile=" + file("node.pem"), "--etcd-keyfile=" + file("node.key")}, lab.Stdio{})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	p.healthy()

	at := etcd.Endpoint()[len("https://"):]
	ends := func(after time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(after) }
	}
	const newFile = "set --etcd-certfile and --etcd-keyfile to a certificate that is signed by etcd's --trusted-ca-file"
	p.treat([]ailment{
		{"of another authority", server(theirs, nil), well, one("etcd", failure, "etcd's certificate is not signed by a trusted authority",
			"set --etcd-cafile to the authority that signed it: openssl s_client -connect "+at+" </dev/null shows it")},
		{"of another name", server(ours, certs.For("192.0.2.1")), well,
			one("etcd", failure, "etcd's certificate is for another name", "openssl s_client -connect "+at+
				" </dev/null | openssl x509 -noout -ext subjectAltName shows its names: use one of them in --etcd-endpoints")},
		{"that has ended", server(ours, ends(-time.Hour)), well,
			one("etcd", failure, "etcd's certificate has expired or is not valid yet", "renew it there; or correct this host's clock, if date shows that it is wrong")},
		{"that ends soon", server(ours, ends(72*time.Hour)), well,
			one("etcd", warns, "the certificate of "+etcd.Endpoint()+" expires at ", "renew it; selvaged reads the file at each connection")},
		{"the node's, of another authority", client(theirs, nil), well, one("etcd", failure, "etcd rejected our client certificate", newFile)},
		{"the node's, that has ended", client(ours, ends(-time.Hour)), well, []symptom{
			{"etcd", failure, "selvaged's own certificate for etcd expired at ", "renew it, or correct this host's clock"},
			{"etcd", failure, "etcd rejected our client certificate because it has expired", "renew the file of --etcd-certfile, which is read at each connection"},
		}},
	})
	p.healthy()
}

// putConfig writes the network config into an etcd that requires client certificates; see [certs.Client].
func putConfig(ctx context.Context, endpoint, ca, path string) error {
	secure, err := certs.Client(ca, path)
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), TLS: secure,
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
