package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// certificates are gRPC credentials that read their files at each handshake. Certificates are short-lived in many
// clusters, and a daemon that had to be restarted for a new one would be a daemon that is forgotten.
type certificates struct {
	credentials.TransportCredentials // what does not depend on the files

	caFile, certFile, keyFile string
}

// newCertificates checks that the files can be used now, so that a mistyped name is an error at the start.
func newCertificates(o Options) (*certificates, error) {
	c := &certificates{
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}),
		caFile:               o.CAFile, certFile: o.CertFile, keyFile: o.KeyFile,
	}
	if _, err := c.config(); err != nil {
		return nil, err
	}
	return c, nil
}

// config reads the files.
func (c *certificates) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("etcd CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd CA file %s: holds no PEM certificate", c.caFile)
		}
	}
	if c.certFile != "" {
		cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd client certificate %s with key %s: %w", c.certFile, c.keyFile, err)
		}
		// Shown even if etcd's list of authorities does not name its issuer: etcd then says what is wrong with it,
		// where a client that showed none would only learn that one is required.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return config, nil
}

// ClientHandshake implements [credentials.TransportCredentials].
func (c *certificates) ClientHandshake(ctx context.Context, host string, raw net.Conn) (
	net.Conn, credentials.AuthInfo, error) {
	config, err := c.config()
	if err != nil {
		return nil, nil, err
	}
	conn, info, err := credentials.NewTLS(config).ClientHandshake(ctx, host, raw)
	if err != nil {
		return nil, nil, err
	}
	return &candidConn{Conn: conn}, info, nil
}

// candidConn tells why a connection was refused. In TLS 1.3 (RFC 8446, section 2) the client's certificate is its last
// word: the handshake has ended for it before the server has judged that, and the first write fails with a broken pipe
// while the alert that says why waits to be read.
type candidConn struct {
	net.Conn
	accepted atomic.Bool // something was read
}

func (c *candidConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.accepted.Store(true)
	}
	return n, err
}

func (c *candidConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil || c.accepted.Load() {
		return n, err
	}
	if c.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		var alert *net.OpError // what crypto/tls makes of a peer's alert
		if _, why := c.Conn.Read(make([]byte, 1)); errors.As(why, &alert) && alert.Op == "remote error" {
			return n, why
		}
	}
	return n, err
}

// Clone implements [credentials.TransportCredentials].
func (c *certificates) Clone() credentials.TransportCredentials {
	clone := *c
	clone.TransportCredentials = c.TransportCredentials.Clone()
	return &clone
}
