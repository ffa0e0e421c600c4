package lab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// account is what a daemon needs to use a [Kube] that speaks TLS, in the form in which a pod has it.
type account struct {
	dir string // like a service account's, of the lab itself: token and ca.crt
	ca  []byte // PEM
	// client trusts the authority.
	client *http.Client
}

// firstToken is the token of all daemons at first.
const firstToken = "first"

// newAccount makes an authority, a certificate for a server at the address host and the lab's own account, in dir.
// server are the options for it.
func newAccount(dir, host string) (a *account, server kubetest.Options, err error) {
	a = &account{dir: dir}
	authority, err := certs.New(dir, "ca")
	if err != nil {
		return nil, server, err
	}
	path := filepath.Join(dir, "kube-apiserver")
	if err := authority.Sign(path, certs.For(host)); err != nil {
		return nil, server, err
	}
	if a.ca, err = os.ReadFile(authority.File); err != nil {
		return nil, server, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.ca)
	a.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	server = kubetest.Options{CertFile: path + ".pem", KeyFile: path + ".key", Token: firstToken}
	return a, server, a.write(dir, kubetest.AdminToken)
}

// write writes an account with a token.
func (a *account) write(dir, token string) error {
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "ca.crt"), a.ca, 0o644),
		os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
	if err != nil {
		return fmt.Errorf("write a service account: %w", err)
	}
	return nil
}

// giveToken gives a node's daemon a token, as the kubelet does.
func (k *Kube) giveToken(do func(func() error) error, token string) error {
	if k.account == nil {
		return nil
	}
	return do(func() error { return k.account.write(apiserver.ServiceAccount, token) })
}

// GiveTokens gives all daemons a token, as their kubelets do. It is for a lab with [Options.KubeTLS].
func (k *Kube) GiveTokens(token string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, do := range k.nodes {
		if err := k.giveToken(do, token); err != nil {
			return err
		}
	}
	return nil
}

// Admin returns a client that changes what the API server holds.
func (k *Kube) Admin() kubetest.Admin {
	admin := k.server.Admin()
	if k.account != nil {
		admin.Client = k.account.client
	}
	return admin
}

// api is how the lab itself reads what is there.
func (k *Kube) api() apiserver.Options {
	o := apiserver.Options{URL: k.server.URL()}
	if k.account != nil {
		o.ServiceAccount = k.account.dir
	}
	return o
}
