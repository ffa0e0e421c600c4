// Package kubeserver runs a real kube-apiserver with an etcd of its own, for tests and measurements. There is nothing
// else of a cluster: no controller manager, no scheduler, no kubelet.
package kubeserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/dist/lab/child"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// Options say how to run the server.
type Options struct {
	Binary string // the kube-apiserver to run; see Find
	// Dir is an existing directory for the data and logs. The caller removes it.
	Dir string
	// Host is the address that the server listens on; empty: 127.0.0.1.
	Host string
	// Etcd is the etcd to run; empty: as in [etcdserver.Options].
	Etcd string
	// Users are those that the server knows by their tokens, beside Admin, each with its groups. What they may do is up
	// to RBAC.
	Users map[string][]string
	Flags []string // appended to the command line

	address string // for tests: that of the first try
}

const (
	portTries = 5                      // times to start when the port was taken meanwhile
	portWait  = 500 * time.Millisecond // until the next time on the same port
)

// errPortTaken means that another program uses the server's port.
var errPortTaken = errors.New("the port is taken")

// Admin is the user who may do everything.
const Admin = "admin"

// Server is a kube-apiserver and its etcd. Its methods are to be called by one goroutine at a time.
type Server struct {
	opts    Options
	address string
	ca      *certs.Authority
	tokens  map[string]string
	etcd    *etcdserver.Server
	running *child.Process // nil: stopped
}

// Find returns the path of the kube-apiserver that make builds (bin/k8s/kube-apiserver) in the module that the working
// directory is in. The error is that of [os.Stat] if it does not exist.
func Find() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			file := filepath.Join(dir, "bin", "k8s", "kube-apiserver")
			_, err := os.Stat(file)
			return file, err
		}
	}
	return "", errors.Join(errors.New("not inside a Go module"), err)
}

// Start runs a server and returns once it is ready. ctx bounds only the start.
func Start(ctx context.Context, o Options) (s *Server, err error) {
	s = &Server{opts: o, tokens: map[string]string{}}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()
	s.opts.Host = cmp.Or(o.Host, "127.0.0.1")
	if s.ca, err = certs.New(o.Dir, "ca"); err != nil {
		return nil, err
	}
	if err := s.ca.Sign(s.file("kube-apiserver"), certs.For("127.0.0.1", s.opts.Host, "10.96.0.1")); err != nil {
		return nil, err
	}
	if err := s.writeTokens(); err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(s.file("service-accounts.key"), text, 0o600); err != nil {
		return nil, err
	}
	if s.etcd, err = etcdserver.Start(ctx, etcdserver.Options{Binary: o.Etcd, Dir: o.Dir}); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if s.address, err = choosePort(s.opts.Host); err != nil {
			return nil, err
		}
		if try == 1 && o.address != "" {
			s.address = o.address
		}
		err = s.launch(ctx)
		if !errors.Is(err, errPortTaken) || try == portTries {
			return s, err
		}
	}
}

// choosePort returns an address whose port is free. It may not be any more when the server listens.
func choosePort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *Server) file(name string) string { return filepath.Join(s.opts.Dir, name) }

// writeTokens writes the file that the server knows users by (kube-apiserver --token-auth-file).
func (s *Server) writeTokens() error {
	var text strings.Builder
	add := func(user string, groups []string) {
		s.tokens[user] = rand.Text()
		fmt.Fprintf(&text, "%s,%s,%s,%q\n", s.tokens[user], user, user, strings.Join(groups, ","))
	}
	add(Admin, []string{"system:masters"})
	for user, groups := range s.opts.Users {
		add(user, groups)
	}
	return os.WriteFile(s.file("tokens"), []byte(text.String()), 0o600)
}

// URL is where the server listens.
func (s *Server) URL() string { return "https://" + s.address }

// CAFile is the file of the authority that signed the server's certificate.
func (s *Server) CAFile() string { return s.ca.File }

// Kubeconfig returns a file by which a client is a user, with the user's token in it.
func (s *Server) Kubeconfig(user string) []byte {
	return fmt.Appendf(nil, `
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: this, user: me}}
clusters:
- {name: this, cluster: {server: %q, certificate-authority: %q}}
users:
- {name: me, user: {token: %q}}
`, s.URL(), s.CAFile(), s.Token(user))
}

// Token is that of a user.
func (s *Server) Token(user string) string { return s.tokens[user] }

// PID is the process id of the kube-apiserver, or 0 if it is stopped.
func (s *Server) PID() int {
	if s.running == nil {
		return 0
	}
	return s.running.PID()
}

// Resume starts the kube-apiserver, and waits until it is ready. A connection of another program may use its port as
// its own for a moment.
func (s *Server) Resume(ctx context.Context) error {
	for try := 1; ; try++ {
		err := s.launch(ctx)
		if !errors.Is(err, errPortTaken) || try == portTries {
			return err
		}
		select {
		case <-time.After(portWait):
		case <-ctx.Done():
			return err
		}
	}
}

// launch starts the kube-apiserver, and waits until it is ready. It fails with errPortTaken if that is why it ended.
func (s *Server) launch(ctx context.Context) error {
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	key := s.file("service-accounts.key")
	running, err := child.Start(s.file("kube-apiserver.log"), s.opts.Binary, append([]string{
		"--etcd-servers=" + s.etcd.Endpoint(), "--bind-address=" + s.opts.Host, "--secure-port=" + port,
		"--tls-cert-file=" + s.file("kube-apiserver.pem"), "--tls-private-key-file=" + s.file("kube-apiserver.key"),
		"--client-ca-file=" + s.ca.File, "--token-auth-file=" + s.file("tokens"), "--cert-dir=" + s.opts.Dir,
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--endpoint-reconciler-type=none",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + key,
		"--service-account-signing-key-file=" + key, "--disable-admission-plugins=ServiceAccount",
	}, s.opts.Flags...)...)
	if err != nil {
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	s.running = running
	return s.ready(ctx)
}

// ready waits until the server says that it is ready. On its port can be another server, which has no certificate of
// our authority.
func (s *Server) ready(ctx context.Context) error {
	authority, err := os.ReadFile(s.ca.File)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := client.Get(s.URL() + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-s.running.Done():
			err, text := s.running.Err(), s.running.LogTail()
			s.running = nil
			if strings.Contains(text, "address already in use") {
				return fmt.Errorf("%w: kube-apiserver cannot listen on %s:\n%s", errPortTaken, s.address, text)
			}
			return fmt.Errorf("kube-apiserver has ended (%v):\n%s", err, text)
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver is not ready: %w\n%s", err, s.running.LogTail())
		case <-tick.C:
		}
	}
}

// Crash kills the kube-apiserver; its etcd runs on.
func (s *Server) Crash() {
	if s.running != nil {
		s.running.Kill()
		s.running = nil
	}
}

// Stop ends the kube-apiserver in an orderly way: it ends watches and connections, which may take a minute.
func (s *Server) Stop(ctx context.Context) error {
	if s.running == nil {
		return nil
	}
	defer s.Crash()
	if err := s.running.Signal(syscall.SIGTERM); err != nil {
		return nil // it has ended
	}
	select {
	case <-s.running.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kube-apiserver did not end: %w", ctx.Err())
	}
}

// Kill kills both programs.
func (s *Server) Kill() {
	s.Crash()
	if s.etcd != nil {
		s.etcd.Kill()
	}
}

// Compact makes etcd forget its history. The kube-apiserver still has recent events in its cache until it is restarted.
func (s *Server) Compact(ctx context.Context) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.etcd.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	head, err := c.Get(ctx, "/", clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	_, err = c.Compact(ctx, head.Header.Revision, clientv3.WithCompactPhysical())
	return err
}

// Backup copies the data of etcd to a directory that must not exist. It stops both programs for that moment.
func (s *Server) Backup(ctx context.Context, dir string) error {
	return s.stopped(ctx, func() error { return os.CopyFS(dir, os.DirFS(s.etcd.DataDir())) })
}

// Restore replaces the data of etcd by that of a backup, as an administrator does after a disaster; with an empty name,
// by nothing.
func (s *Server) Restore(ctx context.Context, dir string) error {
	return s.stopped(ctx, func() error {
		if err := os.RemoveAll(s.etcd.DataDir()); err != nil || dir == "" {
			return err
		}
		return os.CopyFS(s.etcd.DataDir(), os.DirFS(dir))
	})
}

// stopped calls change while nothing runs.
func (s *Server) stopped(ctx context.Context, change func() error) error {
	s.Crash()
	if err := errors.Join(s.etcd.Stop(), change()); err != nil {
		return err
	}
	if err := s.etcd.Restart(ctx); err != nil {
		return err
	}
	return s.Resume(ctx)
}
