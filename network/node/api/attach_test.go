package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// engineOf is what the daemon puts in front of the engine: the two types have the same fields.
type engineOf struct{ *enforce.Engine }

func (e engineOf) Attach(ctx context.Context, a Attachment) error {
	return e.Engine.Attach(ctx, enforce.Attachment(a))
}
func (e engineOf) Isolate(a Attachment) error { return e.Engine.Isolate(enforce.Attachment(a)) }
func (e engineOf) Detach(a Attachment)        { e.Engine.Detach(enforce.Attachment(a)) }

var _ Attacher = engineOf{}

// engine is an Attacher whose Attach does what it is told to.
type engine struct {
	attach  func(context.Context, Attachment) error
	isolate error

	mu    sync.Mutex
	calls []string
	last  Attachment
}

func (e *engine) call(method string, a Attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls, e.last = append(e.calls, method), a
}

func (e *engine) Attach(ctx context.Context, a Attachment) error {
	e.call("attach", a)
	return e.attach(ctx, a)
}
func (e *engine) Isolate(a Attachment) error { e.call("isolate", a); return e.isolate }
func (e *engine) Detach(a Attachment)        { e.call("detach", a) }

// did returns the calls since the last time, and the attachment of the last one.
func (e *engine) did() (calls string, last Attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls, last = strings.Join(e.calls, " "), e.last
	e.calls, e.last = nil, Attachment{}
	return calls, last
}

func atOnce(context.Context, Attachment) error { return nil }

func tooLate(ctx context.Context, _ Attachment) error { <-ctx.Done(); return ctx.Err() }

// serveEngine serves e on a socket until the test ends, and returns a client whose requests go there.
func serveEngine(t *testing.T, e Attacher) *http.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	s, err := Listen(Options{Socket: socket, Log: quiet(), Attacher: e})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, &daemon{status: status.Status{Node: "node1"}}) }()
	t.Cleanup(func() { cancel(); <-done })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

const report = `{"version":1,"network":"cbr0","container":"c1","interface":"eth0","delegate":"bridge","config":{},"result":{"cniVersion":"1.0.0",
"interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},{"name":"veth1","mac":"02:00:00:00:00:02"},{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/x"}],
"ips":[{"address":"fd00:5:0:1d::7/64"},{"address":"10.5.29.7/24","gateway":"10.5.29.1"}]},
"pod":{"namespace":"prod","name":"db-0","uid":"u1"}}`

// post returns the status and the body of an answer.
func post(t *testing.T, c *http.Client, target, body string) (code int, text string) {
	t.Helper()
	r, err := c.Post("http://selvaged"+target, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(data)
}

func TestAttach(t *testing.T) {
	e := &engine{attach: atOnce}
	c := serveEngine(t, e)
	pod := Attachment{UID: "u1", Namespace: "prod", Name: "db-0", ContainerID: "c1"}
	whole := pod
	whole.Interface = "veth1"
	whole.Addresses = [2]netip.Addr{netip.MustParseAddr("10.5.29.7"), netip.MustParseAddr("fd00:5:0:1d::7")}
	const isolate, fail = "/v1/attach?wait_ms=2000&failure=isolate", "/v1/attach?wait_ms=2000&failure=fail"
	for _, tt := range []struct {
		name, target string
		attach       func(context.Context, Attachment) error
		isolate      error
		code         int
		text, calls  string
		want         Attachment
	}{
		{"in force", isolate, atOnce, nil, 204, "", "attach", whole},
		{"isolated", "/v1/attach?wait_ms=1&failure=isolate", tooLate, nil, 202, "", "attach isolate", whole},
		{"too late", "/v1/attach?wait_ms=1&failure=fail", tooLate, nil, 504, "deadline exceeded\n", "attach", whole},
		{"fails", fail, func(context.Context, Attachment) error { return errors.New("no nf_tables") }, nil, 500, "no nf_tables\n", "attach", whole},
		{"fails, isolated", isolate, func(context.Context, Attachment) error { return errors.New("no nf_tables") }, nil, 202, "", "attach isolate", whole},
		{"cannot isolate", isolate, func(context.Context, Attachment) error { return errors.New("x") }, errors.New("no nf_tables"), 500, "x\nno nf_tables\n", "attach isolate", whole},
		{"ends", "/v1/detach", nil, nil, 204, "", "detach", pod},
	} {
		e.attach, e.isolate = tt.attach, tt.isolate
		code, text := post(t, c, tt.target, report)
		calls, got := e.did()
		if code != tt.code || !strings.HasSuffix(text, tt.text) || calls != tt.calls || got != tt.want {
			t.Errorf("%s: answers %d %q, and did %q with %+v; want %d %q, %q with %+v", tt.name, code, text, calls, got, tt.code, tt.text, tt.calls, tt.want)
		}
	}
	for name, request := range map[string]struct {
		target, body string
		code         int
		text         string
	}{
		"no query":       {"/v1/attach", report, 400, "wait_ms is"},
		"no failure":     {"/v1/attach?wait_ms=1", report, 400, "failure is"},
		"too long":       {"/v1/attach?wait_ms=60001&failure=fail", report, 400, "wait_ms is"},
		"negative":       {"/v1/attach?wait_ms=-1&failure=fail", report, 400, "wait_ms is"},
		"not JSON":       {isolate, "x", 400, "decode the record"},
		"no container":   {isolate, `{"version":1,"network":"cbr0","interface":"eth0","pod":{"namespace":"a","name":"b"}}`, 400, "lacks"},
		"no pod":         {isolate, `{"version":1,"network":"cbr0","container":"c1","interface":"eth0"}`, 400, "of its pod"},
		"no pod, ends":   {"/v1/detach", `{"version":1,"network":"cbr0","container":"c1","interface":"eth0"}`, 400, "of its pod"},
		"broken result":  {isolate, strings.Replace(report, `"ips":[`, `"ips":[7,`, 1), 400, "result of bridge"},
		"too large":      {isolate, `{"x":"` + strings.Repeat("x", attachment.MaxReport) + `"}`, 413, "too large"},
		"another method": {"", "", 405, ""},
	} {
		var code int
		var text string
		if request.code == 405 {
			r, err := c.Get("http://selvaged/v1/attach")
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			code = r.StatusCode
		} else {
			code, text = post(t, c, request.target, request.body)
		}
		if calls, _ := e.did(); code != request.code || !strings.Contains(text, request.text) || calls != "" {
			t.Errorf("%s: answers %d %q, and did %q, want %d %q", name, code, text, calls, request.code, request.text)
		}
	}
}

// TestAttachGuesses: an end on the node that is a guess is not passed on.
func TestAttachGuesses(t *testing.T) {
	r, err := attachment.Unmarshal([]byte(strings.Replace(report, `"delegate":"bridge"`, `"delegate":"macvlan"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pods.Parse(r)
	if a := AttachmentOf(p); err != nil || a.Interface != "" || !a.Addresses[0].IsValid() || a.Name != "db-0" {
		t.Errorf("%+v, %v, want addresses alone", a, err)
	}
}

// TestAttachNotAwaited: a plugin that does not wait closes its connection at once.
func TestAttachNotAwaited(t *testing.T) {
	began, rules, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	e := &engine{attach: func(ctx context.Context, _ Attachment) error {
		close(began)
		select {
		case <-rules:
			ended <- nil
		case <-ctx.Done():
			ended <- ctx.Err()
		}
		return nil
	}}
	c := serveEngine(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://selvaged/v1/attach?wait_ms=0&failure=isolate", strings.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := c.Do(r); err == nil {
		answer.Body.Close()
	}
	close(rules)
	if err := <-ended; err != nil {
		t.Errorf("the plugin's end ended it: %v", err)
	}
}

// TestPluginKilled: a runtime that kills the plugin, or an end of the daemon, ends the wait; the pod is not isolated by that.
func TestPluginKilled(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	e := &engine{attach: func(ctx context.Context, _ Attachment) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}
	c := serveEngine(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://selvaged/v1/attach?wait_ms=60000&failure=isolate", strings.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := c.Do(r); err == nil {
		answer.Body.Close()
		t.Errorf("answers %s", answer.Status)
	}
	<-ended
	if code, _ := post(t, c, "/v1/detach", report); code != 204 { // after the other request, or not: it does not isolate
		t.Errorf("DEL is answered by %d", code)
	}
	if calls, _ := e.did(); calls != "attach detach" {
		t.Errorf("did %q", calls)
	}
}

// TestAttachTrust: a process that is neither root nor of the daemon's user is refused, whatever the socket's mode is; and so is
// one that is not known.
func TestAttachTrust(t *testing.T) {
	e := &engine{attach: atOnce}
	s := &Server{source: &daemon{}, log: quiet(), now: time.Now, attacher: e}
	h := s.local()
	for _, path := range []string{"/v1/attach?wait_ms=1&failure=fail", "/v1/detach"} {
		for uid, want := range map[any]int{uint32(0): 204, uint32(4242): 403, uint32(1<<32 - 1): 403, nil: 403} {
			ctx := t.Context()
			if uid != nil {
				ctx = context.WithValue(ctx, peerKey{}, uid)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(report)))
			if w.Code != want {
				t.Errorf("%s from user %v: answers %d %q, want %d", path, uid, w.Code, w.Body, want)
			}
		}
	}
	a, b := net.Pipe() // not a unix socket: no user is known of it
	defer a.Close()
	defer b.Close()
	if trusted(withPeer(t.Context(), a)) {
		t.Error("a connection without a user is trusted")
	}
}

// TestAttachBounded: more pods than may wait are sent away, and DEL and ADD work again after that.
func TestAttachBounded(t *testing.T) {
	var waiting sync.WaitGroup
	waiting.Add(maxReports)
	rules := make(chan struct{})
	e := &engine{attach: func(context.Context, Attachment) error { waiting.Done(); <-rules; return nil }}
	s := &Server{source: &daemon{}, log: quiet(), now: time.Now, attacher: e}
	h := s.local()
	send := func(path string) int {
		ctx := context.WithValue(t.Context(), peerKey{}, uint32(0))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(report)))
		return w.Code
	}
	const attach = "/v1/attach?wait_ms=60000&failure=isolate"
	var all sync.WaitGroup
	for range maxReports {
		all.Go(func() {
			if code := send(attach); code != 204 {
				t.Errorf("answers %d, want 204", code)
			}
		})
	}
	waiting.Wait()
	if code := send(attach); code != 503 {
		t.Errorf("one too many: answers %d, want 503", code)
	}
	close(rules)
	all.Wait()
	e.attach = atOnce
	if a, d := send(attach), send("/v1/detach"); a != 204 || d != 204 {
		t.Errorf("afterwards: answers %d and %d, want 204", a, d)
	}
}

// TestNoAttacher: a daemon without network policies knows nothing of pods.
func TestNoAttacher(t *testing.T) {
	c := serveEngine(t, nil)
	for _, path := range []string{"/v1/attach?wait_ms=1&failure=fail", "/v1/detach"} {
		if code, _ := post(t, c, path, report); code != 404 {
			t.Errorf("%s: answers %d, want 404", path, code)
		}
	}
}
