package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

func TestRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile})
	c := open(t, Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File, "token: t"), UserAgent: "selvaged/1.2"})
	c.listed(t, ListOptions{NotOlderThan: 1})
	w := c.watching(t, WatchOptions{From: 7})
	testctx.Eventually(t, func() string {
		if c.Health().Answers < 2 {
			return "an answer"
		}
		return ""
	})
	w.stop()
	r := s.Requests()
	if len(r) != 2 {
		t.Fatalf("%d requests", len(r))
	}
	for i, want := range []map[string]string{
		{"limit": "500", "resourceVersion": "1", "resourceVersionMatch": "NotOlderThan"},
		{"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": "7", "timeoutSeconds": r[1].Query.Get("timeoutSeconds")},
	} {
		if len(r[i].Query) != len(want) {
			t.Errorf("%s: %v", r[i].Verb, r[i].Query)
		}
		for name, value := range want {
			if r[i].Query.Get(name) != value {
				t.Errorf("%s: %s=%s, want %s", r[i].Verb, name, r[i].Query.Get(name), value)
			}
		}
		h := r[i].Header
		if r[i].Protocol != "HTTP/2.0" || h.Get("User-Agent") != "selvaged/1.2" || h.Get("Accept-Encoding") != "identity" || h.Get("Authorization") != "Bearer t" {
			t.Errorf("%s: %s, %v", r[i].Verb, r[i].Protocol, h)
		}
	}
	if seconds, err := strconv.Atoi(r[1].Query.Get("timeoutSeconds")); err != nil || seconds < 300 || seconds > 600 {
		t.Errorf("a watch of %d s", seconds)
	}
}

// TestOverloaded: a request is sent again when the server wants that, for as long as a request may take.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	s := standIn(t, kubetest.Options{})
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
	for _, x := range []struct{ count, code, after int }{{3, 429, 0}, {1, 429, 1}, {1, 503, 1}} {
		s.Reject(x.count, x.code, x.after)
		began := time.Now()
		c.listed(t, ListOptions{})
		if took := time.Since(began); took < time.Duration(x.after)*time.Second {
			t.Errorf("%+v: sent again after %s", x, took)
		}
		if r := s.Requests(); len(r) != x.count+1 {
			t.Errorf("%+v: %d requests", x, len(r))
		}
	}
	if h := c.Health(); h.Requests["LIST"] != 8 || h.Failed["LIST"] != 5 || h.Answers != 8 {
		t.Errorf("%+v", h)
	}

	impatient := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir(), RequestTimeout: time.Second})
	s.Reject(1, 429, 7)
	_, err := impatient.Node(t.Context(), "a")
	if r := s.Requests(); ProblemOf(err).Reason != subnet.ReasonOverloaded || RetryAfter(err) != 7*time.Second || len(r) != 1 {
		t.Errorf("%v, %s, %d requests", err, RetryAfter(err), len(r))
	}
	s.Reject(1, 500, 0) // it does not say when: the caller's backoff
	_, err = c.Node(t.Context(), "a")
	if r := s.Requests(); ProblemOf(err).Reason != subnet.ReasonUnavailable || RetryAfter(err) != 0 || len(r) != 1 {
		t.Errorf("%v, %s, %d requests", err, RetryAfter(err), len(r))
	}
	s.Reject(1, 429, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Node(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// answering is a server that answers everything alike.
func answering(t *testing.T, contentType string, code int, body []byte) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return open(t, Options{URL: s.URL, ServiceAccount: t.TempDir()})
}

// TestReasons: what each answer means.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		code   int
		status string // in JSON
		kind   error
		reason subnet.Reason
		want   string
	}{
		{401, `{"message":"Unauthorized","reason":"Unauthorized"}`, nil, subnet.ReasonAnonymous, "requires credentials"},
		{403, `{"message":"no","reason":"Forbidden"}`, nil, subnet.ReasonAnonymous, "requires credentials"},
		{404, `{"message":"nodes \"a\" not found","reason":"NotFound"}`, ErrNotFound, subnet.ReasonOther, ""},
		{404, "404 page not found", nil, subnet.ReasonOldVersion, "no API server of a supported version answers"},
		{409, `{"message":"changed","reason":"Conflict"}`, ErrConflict, subnet.ReasonOther, ""},
		{410, `{"message":"too old","reason":"Expired"}`, ErrExpired, subnet.ReasonOther, ""},
		{410, `{"message":"too old","reason":"Gone"}`, ErrExpired, subnet.ReasonOther, ""},
		{422, `{"message":"bad","reason":"Invalid"}`, ErrInvalid, subnet.ReasonOther, "HTTP status 422: bad"},
		{500, `{"message":"etcdserver: no leader"}`, nil, subnet.ReasonUnavailable, "look at its log and at its etcd"},
		{503, "\x1b[1mupstream\nconnect error\x00", nil, subnet.ReasonUnavailable, "HTTP status 503: [1mupstream connect error)"},
		{504, `{"message":"Timeout: request did not complete","reason":"Timeout"}`, nil, subnet.ReasonTimeout, "did not complete"},
		{504, `{"message":"Too large","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}}`, ErrBehind, subnet.ReasonOther, ""},
		{302, "", nil, subnet.ReasonOther, "HTTP status 302"},
		{503, strings.Repeat("x", 1<<20), nil, subnet.ReasonUnavailable, "xxx..."},
	} {
		_, err := answering(t, "application/json", x.code, []byte(x.status)).Node(t.Context(), "a")
		if p := ProblemOf(err); p.Reason != x.reason || x.kind != nil && !errors.Is(err, x.kind) || !strings.Contains(err.Error(), x.want) || len(err.Error()) > 2000 {
			t.Errorf("%d %.80s: %s: %.500v, want %s, %q", x.code, x.status, p.Reason, err, x.reason, x.want)
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != x.code {
			t.Errorf("%d: %#v", x.code, e)
		}
	}
	if p := ProblemOf(nil); p.Err != nil || p.Reason != "" {
		t.Errorf("no error: %+v", p)
	}
	_, err := answering(t, "text/html", 200, []byte("<html>")).Node(t.Context(), "a")
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "something other than an API server answers at") {
		t.Errorf("a web page: %v", err)
	}
}

// TestForbidden: what is missing is in the server's words, and what to do depends on whose credentials they are.
func TestForbidden(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	kubeletCert, kubeletKey := ca.sign(filepath.Join(dir, "kubelet"), named("system:node:a"))
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile, Token: "t"})
	s.Deny("list nodes", "patch nodes/status")
	c := open(t, Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File, "token: t")})
	_, err := c.List(t.Context(), Nodes, ListOptions{}, nil)
	if p := ProblemOf(err); p.Reason != subnet.ReasonForbidden || !p.Reason.AboutUser() || !strings.Contains(err.Error(), "denied the token in the kubeconfig access") ||
		!strings.Contains(err.Error(), `cannot list resource "nodes"`) {
		t.Errorf("%s: %v", p.Reason, err)
	}
	s.Deny("list nodes", "patch nodes/status", "get /version")
	if e := c.Examine(t.Context()); e.Problem.Err != nil || e.Version != "" || e.ClockAhead == nil || e.CertificateEnds.IsZero() || e.Latency <= 0 {
		t.Errorf("a server that keeps its version to itself: %+v", e)
	}
	if ok, _, err := c.Allowed(t.Context(), Right{Verb: "patch", Resource: Nodes, Subresource: "status"}); ok || err != nil {
		t.Errorf("patch is allowed: %t, %v", ok, err)
	}
	if ok, _, err := c.Allowed(t.Context(), Right{Verb: "get", Resource: Nodes}); !ok || err != nil {
		t.Errorf("get is allowed: %t, %v", ok, err)
	}
	kubelet := open(t, Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File,
		"{token: t, client-certificate: "+kubeletCert+", client-key: "+kubeletKey+"}")})
	if _, err := kubelet.List(t.Context(), Nodes, ListOptions{}, nil); err == nil || !strings.Contains(err.Error(), "since Kubernetes 1.32 a kubelet's credentials may read its own Node only") {
		t.Errorf("a kubelet: %v", err)
	}
}

// TestUnreachable: a server that is not there.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	silent := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")) // it accepts, and says nothing
	defer silent.Close()
	l.Close()
	for _, x := range []struct {
		url    string
		reason subnet.Reason
	}{
		{"https://" + l.Addr().String(), subnet.ReasonRefused},
		{"http://" + silent.Addr().String(), subnet.ReasonTimeout},
		{"https://nobody.invalid:6443", subnet.ReasonNameNotResolved},
	} {
		c := open(t, Options{URL: x.url, ServiceAccount: t.TempDir(), RequestTimeout: 300 * time.Millisecond})
		if x.reason != subnet.ReasonTimeout {
			c.opts.RequestTimeout = patience
		}
		_, err := c.Version(t.Context())
		if p := ProblemOf(err); p.Reason != x.reason {
			t.Errorf("%s: %s: %v, want %s", x.url, p.Reason, err, x.reason)
		}
		if h := c.Health(); h.Failed["GET"] != 1 || h.Requests["GET"] != 1 || h.Answers != 0 || !h.LastContact.IsZero() {
			t.Errorf("%+v", h)
		}
		if e := c.Examine(t.Context()); e.Problem.Reason != x.reason {
			t.Errorf("%+v", e)
		}
	}
}

// hole is a way to a server that can be cut without a word, as by a firewall or a dead machine.
type hole struct {
	address string
	cut     atomic.Bool
}

func newHole(t *testing.T, to string) *hole {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	h := &hole{address: l.Addr().String()}
	forward := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if h.cut.Load() {
				continue
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			go forward(in, out)
			go forward(out, in)
		}
	}()
	return h
}

// TestDeadConnection: a connection that is dead is noticed although nothing is sent on it.
func TestDeadConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile})
	h := newHole(t, strings.TrimPrefix(s.URL(), "https://"))
	c := open(t, Options{Kubeconfig: kubeconfigFile(t, "https://"+h.address, ca.File, "token: t"), pingAfter: 100 * time.Millisecond, pingTimeout: 2 * time.Second})
	_, from := c.listed(t, ListOptions{})
	w := c.watching(t, WatchOptions{From: from})
	must[kubetest.Object](t)(adminOf(t, s, ca.File).CreateNode(t.Context(), kubetest.Node{Name: "a"}))
	w.next()
	h.cut.Store(true)
	if err := w.end(); ProblemOf(err).Reason != subnet.ReasonDisconnected {
		t.Errorf("%s: %v", ProblemOf(err).Reason, err)
	}
	h.cut.Store(false)
	c.listed(t, ListOptions{})
}

// adminOf is a client for a server with TLS.
func adminOf(t *testing.T, s *kubetest.Server, caFile string) kubetest.Admin {
	a := s.Admin()
	a.Client = trusting(t, caFile)
	return a
}

// TestStalledList: a list that stops in the middle ends.
func TestStalledList(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", protobuf)
		_, _ = io.WriteString(w, magic)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	c := open(t, Options{URL: s.URL, ServiceAccount: t.TempDir(), RequestTimeout: 300 * time.Millisecond})
	_, err := c.List(t.Context(), Nodes, ListOptions{}, nil)
	if ProblemOf(err).Reason != subnet.ReasonTimeout {
		t.Errorf("%s: %v", ProblemOf(err).Reason, err)
	}
	if h := c.Health(); h.Failed["LIST"] != 1 {
		t.Errorf("%+v", h)
	}
}
