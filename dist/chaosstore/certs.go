package chaosstore

import (
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
	"time"
)

// certificates are the files that etcd and the daemons are started with. They are replaced by other files under the same
// names.
type certificates struct{ dir string }

func (c certificates) file(name string) string { return filepath.Join(c.dir, name) }

// newCertificates makes an authority, and signs a certificate for all members, one for the daemons (the user selvage) and
// one for ourselves (root).
func newCertificates(dir string, members []string) (certificates, error) {
	c := certificates{dir}
	return c, c.renew(members)
}

// renew makes everything anew, the authority included.
func (c certificates) renew(members []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make an authority: %w", err)
	}
	errs := []error{c.write("ca.pem", "CERTIFICATE", der)}
	server := template("etcd")
	for _, m := range members {
		server.IPAddresses = append(server.IPAddresses, net.ParseIP(m))
	}
	errs = append(errs, c.sign("server", server, ca, key))
	for _, user := range []string{"selvage", "root"} {
		errs = append(errs, c.sign(user, template(user), ca, key))
	}
	return errors.Join(errs...)
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// sign writes name.pem and name.key.
func (c certificates) sign(name string, what, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, what, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(c.write(name+".pem", "CERTIFICATE", der), c.write(name+".key", "PRIVATE KEY", pkcs8))
}

func (c certificates) write(name, kind string, der []byte) error {
	return os.WriteFile(c.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// root is what we show to etcd.
func (c certificates) root() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.file("root.pem"), c.file("root.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.file("ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}
