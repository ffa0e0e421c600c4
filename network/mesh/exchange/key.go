package exchange

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// KeyFile is the name of the file in the state directory with the private key of a node's server.
const KeyFile = "mesh.key"

// pemKey is the type of its PEM block (PKCS #8).
const pemKey = "PRIVATE KEY"

// keptKey returns the private key in a file, which it makes if there is none: a restart of the daemon changes nothing
// in the node's lease.
func keptKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(path)
	}
	if err != nil {
		return nil, errno.Explain(errno.File, fmt.Errorf("read the key of --mesh-addr: %w", err))
	}
	block, _ := pem.Decode(data)
	if block != nil && block.Type == pemKey {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("the key of --mesh-addr in %s is damaged: remove the file, and another one is made", path)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the key of --mesh-addr: %w", err)
	}
	return key, writeKey(path, key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})
	if err := wholefile.Replace(path, text, 0o600, 0o700); err != nil {
		return fmt.Errorf("save the key of --mesh-addr: %w", errno.Written(path, err))
	}
	return nil
}

// selfMade returns a certificate for a key. What it says does not matter: those who ask know the key itself, by
// the node's lease. So it has no end (RFC 5280, section 4.1.2.5).
func selfMade(key *ecdsa.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "selvage mesh"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of --mesh-addr: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// pinOf identifies the key of a certificate, see subnet.Lease.MeshKey. The form is that of RFC 7469.
func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// errOtherKey is the error for a server that has another key than the node's lease names.
var errOtherKey = errors.New("its key is not the one that its lease names")

// pinned returns the settings of a client that goes on with one server only: before that has shown that it has the
// key, nothing is sent.
func pinned(pin string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // no authority has signed it; VerifyConnection decides
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || pinOf(state.PeerCertificates[0]) != pin {
				return errOtherKey
			}
			return nil
		},
	}
}
