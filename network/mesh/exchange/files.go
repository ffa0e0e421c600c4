// Package exchange carries summaries between nodes over TLS. [Server] serves a node's own, and [Ask] asks other nodes
// for theirs. They know each other in one of two ways:
//
//   - Both sides show a certificate of the cluster's authority, see [Files].
//   - In Kubernetes, the asking side shows the token of a ServiceAccount, which the other side has reviewed by the API
//     server, see [Tokens]. It shows it only to a server that has the key that the node's lease names, so that no other
//     host gets a token.
package exchange

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// Files are the paths of PEM files: the authority's certificates, and this node's certificate and key.
type Files struct{ CA, Cert, Key string }

// identity is what the files hold.
type identity struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// read reads the files.
func (f Files) read() (*identity, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	id := &identity{roots: x509.NewCertPool()}
	if !id.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s: holds no PEM certificate", f.CA)
	}
	if id.cert, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	return id, nil
}

// stamp tells whether a file was replaced or changed.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// stamps returns the stamp of each file; zero: it cannot be looked at. Links are followed: Kubernetes replaces the link
// of a mounted Secret.
func (f Files) stamps() (all [3]stamp) {
	for i, path := range []string{f.CA, f.Cert, f.Key} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		all[i] = stamp{modified: info.ModTime(), size: info.Size()}
		if raw, ok := info.Sys().(*syscall.Stat_t); ok {
			all[i].inode = raw.Ino
		}
	}
	return all
}

// lookEvery is the least time between two looks at the files: a client without a certificate can make the server look.
const lookEvery = time.Second

// keeper has what the files hold, and reads them again after they have changed. Files that cannot be used change
// nothing: of a certificate and its key, one is replaced before the other.
type keeper struct {
	files Files
	log   logrus.FieldLogger
	now   func() time.Time

	mu     sync.Mutex
	looked time.Time
	seen   [3]stamp // of the files that were read last
	held   *identity
}

// newKeeper reads the files, so that a mistyped name is an error at the start.
func newKeeper(f Files, log logrus.FieldLogger) (*keeper, error) {
	k := &keeper{files: f, log: log, now: time.Now, looked: time.Now(), seen: f.stamps()}
	var err error
	k.held, err = f.read()
	return k, err
}

// current returns what the files hold.
func (k *keeper) current() *identity {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if now.Sub(k.looked) < lookEvery {
		return k.held
	}
	k.looked = now
	seen := k.files.stamps()
	if seen == k.seen {
		return k.held
	}
	k.seen = seen
	id, err := k.files.read()
	if err != nil {
		k.log.WithError(err).Warn("the files of the mesh certificate have changed and cannot be used; " +
			"keeping the certificate in use until they change again")
		return k.held
	}
	k.held = id
	k.log.WithField("expires", id.cert.Leaf.NotAfter.Format(time.RFC3339)).Info("mesh certificate read again")
	return k.held
}

// server returns the settings of a server.
func (k *keeper) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, // all clients are selvage's
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			id := k.current()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: id.roots,
				SessionTicketsDisabled: true, // each connection proves its certificate
			}, nil
		},
	}
}

// client returns the settings of a client.
func (id *identity) client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: id.roots,
		// Shown even if the server's authorities do not include its issuer: the server then says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil },
	}
}
