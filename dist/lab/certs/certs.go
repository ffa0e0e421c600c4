// Package certs makes certificate authorities and signs certificates with them, for the etcd of labs and tests.
package certs

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

// Authority signs certificates.
type Authority struct {
	File string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority whose certificate is in the file dir/name.pem, which is replaced if it exists.
func New(dir, name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority %s: %w", name, err)
	}
	a := &Authority{File: filepath.Join(dir, name+".pem"), key: key}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, write(a.File, "CERTIFICATE", der)
}

// certificate is valid now and for a month, for servers and clients.
func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Sign makes a key and a certificate for it and writes them to the files path.key and path.pem, which are replaced if
// they exist. The last element of path is the common name, which is a user's name to etcd. Each change is applied to
// the certificate before it is signed; a nil one has no effect.
func (a *Authority) Sign(path string, changes ...func(*x509.Certificate)) error {
	template := certificate(filepath.Base(path))
	for _, change := range changes {
		if change != nil {
			change(template)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate %s.pem: %w", path, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(write(path+".pem", "CERTIFICATE", der), write(path+".key", "PRIVATE KEY", pkcs8))
}

func write(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// For returns a change that makes a certificate valid for servers at these IP addresses.
func For(addrs ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.IPAddresses = nil
		for _, a := range addrs {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(a))
		}
	}
}

// Client returns the settings of a client that presents the certificate path.pem, with the key path.key, and trusts the
// authority in the file ca.
func Client(ca, path string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(path+".pem", path+".key")
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}
