package apiserver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// rereadAfter is how old what was read from the files may be. The kubelet renews a pod's token after 80 % of its
// lifetime of an hour, and the old one stays valid until its end.
const rereadAfter = time.Minute

// credentials are what the files hold at one time.
type credentials struct {
	token string
	roots *x509.CertPool   // nil: those of the system
	cert  *tls.Certificate // nil: none
	raw   []byte           // of the certificate and the authorities, to tell whether they have changed
}

// vault reads the files of the credentials, now and then and when the server rejects what they held. What was read
// last stays in use while a file cannot be read: it may be in the middle of its replacement.
type vault struct {
	file   string // kubeconfig that is read again; empty: none
	secure bool   // the server is spoken to over TLS

	mu     sync.Mutex
	config config
	now    credentials
	read   time.Time // when now was read
	err    error     // why it could not be read again; nil: it could
}

// newVault reads the files for the first time, so that a mistyped name is an error at the start.
func newVault(file string, c config) (*vault, error) {
	v := &vault{file: file, config: c, secure: c.url.Scheme == "https"}
	v.refresh(time.Now(), 0)
	return v, v.err
}

// get returns the credentials, read again if they are older than rereadAfter.
func (v *vault) get() credentials {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refresh(time.Now(), rereadAfter)
	return v.now
}

// renew reads the credentials again, and reports whether they differ from what a request has used.
func (v *vault) renew(used credentials) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refresh(time.Now(), 0)
	return v.now.token != used.token || !bytes.Equal(v.now.raw, used.raw)
}

// failure is why the files cannot be read; nil: they can.
func (v *vault) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *vault) refresh(now time.Time, age time.Duration) {
	if !v.secure || !v.read.IsZero() && now.Sub(v.read) < age {
		return
	}
	v.read = now
	c := v.config
	if v.file != "" {
		again, err := readKubeconfig(v.file)
		if err != nil {
			v.err = err
			return
		}
		c.user, c.caFile, c.caData = again.user, again.caFile, again.caData
	}
	next, err := c.load()
	if v.err = err; err == nil {
		v.now, v.config = next, c
	}
}

// load reads the files.
func (c config) load() (next credentials, err error) {
	authorities := c.caData
	if len(authorities) == 0 && c.caFile != "" {
		if authorities, err = readFile(c.caFile); err != nil {
			return next, fmt.Errorf("API server CA file: %w", err)
		}
	}
	if len(authorities) > 0 || c.caFile != "" {
		next.roots = x509.NewCertPool()
		if !next.roots.AppendCertsFromPEM(authorities) {
			return next, fmt.Errorf("API server CA %s: holds no PEM certificate", orData(c.caFile))
		}
	}
	u := c.user
	next.token = u.token
	if u.tokenFile != "" {
		data, err := readFile(u.tokenFile)
		next.token = strings.TrimSpace(string(data))
		if err == nil && (next.token == "" || strings.ContainsAny(next.token, " \t\r\n")) {
			err = fmt.Errorf("%s: want one token, and nothing else", u.tokenFile)
		}
		if err != nil {
			return next, fmt.Errorf("token file: %w", err)
		}
	}
	cert, key := u.certData, u.keyData
	if len(cert) == 0 && u.certFile != "" {
		if cert, err = readFile(u.certFile); err != nil {
			return next, fmt.Errorf("client certificate: %w", err)
		}
	}
	if len(key) == 0 && u.keyFile != "" {
		if key, err = readFile(u.keyFile); err != nil {
			return next, fmt.Errorf("client key: %w", err)
		}
	}
	if len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return next, fmt.Errorf("client certificate %s with key %s: %w", orData(u.certFile), orData(u.keyFile), err)
		}
		next.cert = &pair
	}
	next.raw = bytes.Join([][]byte{authorities, cert, key}, nil)
	return next, nil
}

// orData names a file, or that its content is in the kubeconfig.
func orData(file string) string {
	if file == "" {
		return "in the kubeconfig"
	}
	return file
}

// tls returns the settings of connections. They use the files of that moment.
func (v *vault) tls(c config) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: c.serverName, // net/http fills in the URL's host, or that of a proxy
		// Shown even if the server's list of authorities does not name its issuer: the server then says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert := v.get().cert; cert != nil {
				return cert, nil
			}
			return &tls.Certificate{}, nil
		},
		// VerifyConnection does what crypto/tls does by itself otherwise, with the authorities of now.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if c.insecure {
				return nil
			}
			name := state.ServerName
			if name == "" { // as for all IP addresses (RFC 6066, section 3)
				name = c.url.Hostname()
			}
			used := v.get()
			err := verify(state, name, used.roots)
			if errors.As(err, new(x509.UnknownAuthorityError)) && v.renew(used) {
				err = verify(state, name, v.get().roots)
			}
			return err
		},
	}
}

// verify checks a server's certificate, as crypto/tls does (handshake_client.go, verifyServerCertificate).
func verify(state tls.ConnectionState, name string, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(o)
	return err
}
