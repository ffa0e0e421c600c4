package apiserver

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// TestTokenIsReadAgain: a token that the server rejects is replaced at once, and any after a minute.
func TestTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile, Token: "first"})
	token := write(t, filepath.Join(dir, "token"), "first")
	c := open(t, Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File, "tokenFile: "+token)})
	c.listed(t, ListOptions{})
	s.SetToken("second")
	write(t, token, "second")
	s.Requests()
	c.listed(t, ListOptions{})
	if r := s.Requests(); len(r) != 2 || r[0].Header.Get("Authorization") != "Bearer first" || r[1].Header.Get("Authorization") != "Bearer second" {
		t.Errorf("%d requests: %+v", len(r), r)
	}

	s.SetToken("third") // which the file does not have
	_, err := c.Node(t.Context(), "a")
	if p := ProblemOf(err); p.Reason != subnet.ReasonUnauthenticated || !strings.Contains(err.Error(), "rejected the token in "+token) {
		t.Errorf("%v", err)
	}
	if r := s.Requests(); len(r) != 1 {
		t.Errorf("%d requests with a wrong token, want one", len(r))
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	s.SetToken("second")
	c.listed(t, ListOptions{}) // the last one that was read
	s.SetToken("third")
	if _, err := c.Node(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v, want that the file is missing", err)
	}

	write(t, token, "fourth")
	v := c.vault
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refresh(v.read.Add(rereadAfter-time.Second), rereadAfter)
	if v.now.token == "fourth" {
		t.Error("the token was read again early")
	}
	v.refresh(v.read.Add(rereadAfter), rereadAfter)
	if v.now.token != "fourth" {
		t.Errorf("after a minute the token is %q", v.now.token)
	}
}

func named(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func otherName(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"kubernetes"} }

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newAuthority(t, dir, "ours"), newAuthority(t, dir, "theirs")
	start := func(name string, changes ...func(*x509.Certificate)) string {
		certFile, keyFile := ours.sign(filepath.Join(dir, name), changes...)
		return standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile}).URL()
	}
	fine, stale, misnamed := start("server"), start("stale", expired), start("misnamed", otherName)
	clear := standIn(t, kubetest.Options{}).URL()
	for _, c := range []struct {
		name, url, cluster string
		reason             subnet.Reason
		want               string
	}{
		{"trusted", fine, "certificate-authority: " + ours.File, "", ""},
		{"insecure", stale, "insecure-skip-tls-verify: true", "", ""},
		{"server's name", misnamed, "certificate-authority: " + ours.File + ", tls-server-name: kubernetes", "", ""},
		{"in the clear", clear, "", "", ""},
		{"untrusted", fine, "certificate-authority: " + theirs.File, subnet.ReasonUntrustedCertificate, "check the CA file"},
		{"the system's authorities", fine, "", subnet.ReasonUntrustedCertificate, "check the CA file"},
		{"expired", stale, "certificate-authority: " + ours.File, subnet.ReasonExpiredCertificate, "set this host's clock"},
		{"other name", misnamed, "certificate-authority: " + ours.File, subnet.ReasonWrongNameCertificate, "is for another name"},
		{"wrong name", fine, "certificate-authority: " + ours.File + ", tls-server-name: etcd", subnet.ReasonWrongNameCertificate, "is for another name"},
		{"https to http", strings.Replace(clear, "http:", "https:", 1), "", subnet.ReasonNotTLS, "does not speak TLS"},
		{"http to https", strings.Replace(fine, "https:", "http:", 1), "", subnet.ReasonNeedsTLS, "use https"},
	} {
		file := write(t, filepath.Join(t.TempDir(), "kubeconfig"), strings.Replace(minimal, `{server: "https://10.0.0.1:6443"}`,
			`{server: "`+c.url+`", `+c.cluster+`}`, 1))
		_, err := open(t, Options{Kubeconfig: file}).Version(t.Context())
		if p := ProblemOf(err); p.Reason != c.reason || c.want != "" && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s: %v, want %s, %q", c.name, p.Reason, err, c.reason, c.want)
		}
	}
}

// TestFilesAreReplaced: a new authority of the server, and a new certificate of ours, need no restart.
func TestFilesAreReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	serverCert, serverKey := ca.sign(filepath.Join(dir, "server"))
	clientCert, clientKey := ca.sign(filepath.Join(dir, "client"), named("first"))
	s := standIn(t, kubetest.Options{CertFile: serverCert, KeyFile: serverKey})
	c := open(t, Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File, "{client-certificate: "+clientCert+", client-key: "+clientKey+"}")})
	c.listed(t, ListOptions{})
	w := c.watching(t, WatchOptions{From: s.Version()})
	testctx.Eventually(t, func() string {
		if c.Health().Answers < 2 {
			return "the watch"
		}
		return ""
	})
	if end := c.CertificateEnds(); end.Before(time.Now()) {
		t.Errorf("our certificate ends %s", end)
	}
	if r := s.Requests(); r[0].User != "first" {
		t.Errorf("the first request is of %q", r[0].User)
	}

	// Ours: the server rejects the old one, as after its end. The watch ends with the connection.
	ca.sign(filepath.Join(dir, "client"), named("second"))
	s.Reject(1, 401, 0)
	c.listed(t, ListOptions{})
	if r := s.Requests(); r[len(r)-1].User != "second" {
		t.Errorf("the last request is of %q", r[len(r)-1].User)
	}
	if err := w.end(); ProblemOf(err).Reason != subnet.ReasonDisconnected {
		t.Errorf("the watch on the old connection ends with %v", err)
	}

	// The server's, with another authority.
	ca = newAuthority(t, dir, "ca")
	ca.sign(filepath.Join(dir, "server"))
	s.Stop()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c.listed(t, ListOptions{})
}

// TestAddressesChanged: connections whose address is gone are closed, and others are opened.
func TestAddressesChanged(t *testing.T) {
	t.Parallel()
	s := standIn(t, kubetest.Options{})
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
	w := c.watching(t, WatchOptions{From: s.Version()})
	testctx.Eventually(t, func() string {
		if len(c.Addresses()) == 0 || c.Health().Answers == 0 {
			return "a connection"
		}
		return ""
	})
	c.AddressesChanged() // ours is still there
	c.connections.closeFrom(func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") })
	must[kubetest.Object](t)(s.Admin().CreateNode(t.Context(), kubetest.Node{Name: "a"}))
	if e := w.next(); e.Object.Name != "a" {
		t.Errorf("%+v", e)
	}
	c.connections.closeFrom(func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") })
	if err := w.end(); ProblemOf(err).Reason != subnet.ReasonDisconnected || errors.Is(err, ErrEnded) {
		t.Errorf("%v, want that the connection broke", err)
	}
	c.listed(t, ListOptions{})
}
