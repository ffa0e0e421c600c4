package exchange

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// issuer stands for the API server: it knows which tokens are valid, and whose they are.
type issuer struct {
	mu      sync.Mutex
	users   map[string]string // by token
	down    error
	reviews int
	held    chan struct{} // if it is not nil, reviews wait for its end
}

func (i *issuer) review(ctx context.Context, token string) (user, why string, err error) {
	i.mu.Lock()
	i.reviews++
	held, down, user := i.held, i.down, i.users[token]
	i.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
	}
	switch {
	case down != nil:
		return "", "", down
	case user == "":
		return "", "it is not valid", nil
	}
	return user, "", nil
}

func (i *issuer) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reviews
}

const asks = "system:serviceaccount:selvage:selvage"

// forge makes a token that says something. Only the issuer can tell that nobody has signed it.
func forge(says map[string]any, number int) string {
	body, _ := json.Marshal(says)
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(body) + "." + encode(fmt.Append(nil, "signature", number))
}

func says(user string, audience any, lasts time.Duration) map[string]any {
	return map[string]any{"sub": user, "aud": audience, "exp": time.Now().Add(lasts).Unix()}
}

// newTokens returns the options of a server, and its issuer, which knows a token.
func newTokens(t testing.TB) (o Options, i *issuer, file, token string) {
	t.Helper()
	dir := t.TempDir()
	file, token = filepath.Join(dir, "token"), forge(says(asks, []string{Audience}, time.Hour), 0)
	i = &issuer{users: map[string]string{token: asks}}
	write(t, file, token)
	log := logrus.New()
	log.SetOutput(io.Discard)
	return Options{Address: freePort(t, "127.0.0.1"), Log: log, Tokens: Tokens{
		File: file, Accounts: []Account{{"selvage", "selvage"}, {"selvage", "selvage-mesh"}},
		KeyFile: filepath.Join(dir, "mesh.key"), Review: i.review,
	}}, i, file, token
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveTokens serves a summary until the test ends.
func serveTokens(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := listen(o, patiently())
	if err != nil {
		t.Fatal(err)
	}
	s.gate.limits.timeout = patient
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, &daemon{node: "node1"}) }()
	t.Cleanup(func() { cancel(); <-done })
	await(t, "a summary", func() bool { return s.last.Load() != nil })
	return s
}

// showToken asks a server as selvaged mesh does.
func showToken(t testing.TB, s *Server, file, key string) mesh.Answer {
	t.Helper()
	q := Query{TokenFile: file, Port: s.Access().Port, Timeout: patient, Parallel: 1}
	answers, err := Ask(t.Context(), q, []mesh.Target{{Public: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, MeshKey: key}})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0]
}

// TestTokens: who shows the token of an allowed account for our audience is told the summary, and nobody else.
func TestTokens(t *testing.T) {
	const other = "system:serviceaccount:selvage:default"
	for _, tt := range []struct {
		name    string
		says    map[string]any
		user    string // of the token by the API server; empty: it is not valid
		want    status.Reason
		reviews int
	}{
		{"well", says(asks, []string{Audience}, time.Hour), asks, "", 1},
		{"well, with the audience as a text", says(asks, Audience, time.Hour), asks, "", 1},
		{"the page's account", says(asks+"-mesh", []string{Audience}, time.Hour), asks + "-mesh", "", 1},
		{"of the API server's audience", says(asks, []string{"https://kubernetes.default.svc"}, time.Hour), asks, mesh.TokenRefused, 0},
		{"without an audience", map[string]any{"sub": asks}, asks, mesh.TokenRefused, 0},
		{"of another account", says(other, []string{Audience}, time.Hour), other, mesh.TokenRefused, 0},
		{"of another namespace", says("system:serviceaccount:other:selvage", []string{Audience}, time.Hour), "", mesh.TokenRefused, 0},
		{"that says that it is an allowed account's", says(asks, []string{Audience}, time.Hour), other, mesh.TokenRefused, 1},
		{"that nobody has issued", says(asks, []string{Audience}, time.Hour), "", mesh.TokenRefused, 1},
		{"expired", says(asks, []string{Audience}, -time.Hour), "", mesh.TokenRefused, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, i, file, _ := newTokens(t)
			s := serveTokens(t, o)
			token := forge(tt.says, 1)
			i.change(func() { i.users[token] = tt.user })
			write(t, file, token)
			for range 2 { // the second time without a review
				got := showToken(t, s, file, s.Key())
				if got.Code != tt.want || (got.Summary != nil) != (tt.want == "") {
					t.Errorf("got %+v, want %q", got, tt.want)
				}
			}
			if n := i.count(); n != tt.reviews {
				t.Errorf("%d reviews, want %d", n, tt.reviews)
			}
		})
	}
}

// TestNoToken: a stranger is told no more than that it is refused, whatever it asks for.
func TestNoToken(t *testing.T) {
	o, i, _, token := newTokens(t)
	s := serveTokens(t, o)
	const host = " HTTP/1.1\r\nHost: x\r\n"
	for name, tt := range map[string]struct {
		request string
		want    string
	}{
		"no token":            {"GET " + mesh.Path + host + "\r\n", "401"},
		"another path":        {"GET /" + host + "\r\n", "401"},
		"another method":      {"POST " + mesh.Path + host + "Content-Length: 0\r\n\r\n", "401"},
		"nonsense":            {"GET " + mesh.Path + host + "Authorization: Bearer x.y.z\r\n\r\n", "401"},
		"a huge token":        {"GET " + mesh.Path + host + "Authorization: Bearer " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		"a body":              {"GET " + mesh.Path + host + "Content-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 1<<20), "401"},
		"another scheme":      {"GET " + mesh.Path + host + "Authorization: Basic " + token + "\r\n\r\n", "401"},
		"a token in the path": {"GET " + mesh.Path + "?token=" + token + host + "\r\n", "401"},
	} {
		raw, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, pinned(s.Key()))
		go func() { _, _ = io.WriteString(c, tt.request) }()
		got, _ := io.ReadAll(c)
		raw.Close()
		if !strings.HasPrefix(string(got), "HTTP/1.1 "+tt.want) || strings.Contains(string(got), "node1") ||
			strings.Contains(string(got), "selvage") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if n := i.count(); n > 0 {
		t.Errorf("%d reviews", n)
	}
}

// TestNoTokenForStrangers: a token is sent only to a server that has the key of the node's lease.
func TestNoTokenForStrangers(t *testing.T) {
	o, i, file, _ := newTokens(t)
	s := serveTokens(t, o)
	for key, want := range map[string]status.Reason{
		"": mesh.NoKey, "KG5wUC3C0qRVdUpAMlIOxSRbNnZZn6IWdqGsmuFqZtg=": mesh.BadCertificate,
	} {
		if got := showToken(t, s, file, key); got.Code != want {
			t.Errorf("with the key %q: %+v, want %s", key, got, want)
		}
	}
	if n := i.count(); n > 0 {
		t.Errorf("%d tokens were sent", n)
	}
	// After the file was lost, the server has another key, and answers those who know it from the new lease.
	again := o
	if again.Address = freePort(t, "127.0.0.1"); os.Remove(o.Tokens.KeyFile) != nil {
		t.Fatal("there is no file of the key")
	}
	changed := serveTokens(t, again)
	if got := showToken(t, changed, file, s.Key()); got.Code != mesh.BadCertificate {
		t.Errorf("a changed key: %+v", got)
	}
	if got := showToken(t, changed, file, changed.Key()); got.Summary == nil || !got.CertificateEnds.IsZero() {
		t.Errorf("with the new key: %+v", got)
	}
	// A restart keeps the key, so the lease stays as it is.
	again.Address = freePort(t, "127.0.0.1")
	if restarted := serveTokens(t, again); restarted.Key() != changed.Key() {
		t.Errorf("after a restart the key is %s, and was %s", restarted.Key(), changed.Key())
	}
	if info, err := os.Stat(o.Tokens.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the key: %v, %v", info.Mode(), err)
	}
}

// clock is one that tests set.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()) }
func (c *clock) add(by time.Duration) { c.at.Add(int64(by)) }

// newTestGate returns a gate with a clock of its own.
func newTestGate(t testing.TB) (g *gate, i *issuer, c *clock, token string) {
	o, i, _, token := newTokens(t)
	c = &clock{}
	c.at.Store(time.Now().UnixNano())
	g = newGate(o.Tokens, daemonGate)
	g.now, g.limits.timeout = c.now, patient
	return g, i, c, token
}

func from(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}) }

func codeOfRefusal(r *refusal) int {
	if r == nil {
		return http.StatusOK
	}
	return r.code
}

// TestReviews: how long a review counts, and what a token that is not valid any more, or an API server that does not answer, changes.
func TestReviews(t *testing.T) {
	g, i, c, token := newTestGate(t)
	step := func(name string, want, reviews int) {
		t.Helper()
		before := i.count()
		if got := g.admit(t.Context(), from(1), token); codeOfRefusal(got) != want {
			t.Errorf("%s: %+v, want %d", name, got, want)
		}
		if n := i.count() - before; n != reviews {
			t.Errorf("%s: %d reviews, want %d", name, n, reviews)
		}
	}
	step("at first", 200, 1)
	c.add(g.limits.accepted - time.Second)
	step("soon", 200, 0)
	c.add(time.Second)
	step("later", 200, 1)
	c.add(g.limits.accepted)
	i.change(func() { i.down = errors.New("it is down") })
	step("the API server is down", 200, 1)
	step("still", 200, 0)
	c.add(g.limits.retry)
	i.change(func() { i.down, i.users[token] = nil, "" })
	step("the pod of the token is gone", 401, 1)
	step("again", 401, 0)
	c.add(time.Minute)
	i.change(func() { i.down = errors.New("it is down") })
	step("refused before, and the API server is down", 502, 1)
	c.add(time.Minute)
	i.change(func() { i.down, i.users[token] = nil, asks })
	step("it is valid again", 200, 1)
	c.add(2 * time.Hour)
	i.change(func() { i.down = errors.New("it is down") })
	step("it has ended, and the API server is down", 502, 1)
	i.change(func() { i.down = nil })
	step("this node's clock is ahead", 200, 1)
	step("which costs few reviews", 200, 0)
}

// TestOneReview: many requests with one token wait for one review.
func TestOneReview(t *testing.T) {
	g, i, _, token := newTestGate(t)
	held := make(chan struct{})
	i.held = held
	var asking sync.WaitGroup
	for n := range 50 {
		asking.Go(func() {
			if got := g.admit(t.Context(), from(n), token); got != nil {
				t.Errorf("%+v", got)
			}
		})
	}
	await(t, "a review", func() bool { return i.count() > 0 })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := g.admit(gone, from(1), token); got == nil || got.code != http.StatusBadGateway {
		t.Errorf("a client that does not wait: %+v", got)
	}
	close(held)
	asking.Wait()
	if n := i.count(); n != 1 {
		t.Errorf("%d reviews", n)
	}
}

// TestFlood: forged tokens cause few reviews, also those of one address, and are not remembered without end. An accepted token is
// answered meanwhile, and reviewed again in time.
func TestFlood(t *testing.T) {
	g, i, c, token := newTestGate(t)
	g.limits.most = 16
	if got := g.admit(t.Context(), from(0), token); got != nil {
		t.Fatal(got)
	}
	flood := func(sources int) (reviews int) {
		before, refused := i.count(), 0
		for n := range 5000 {
			c.add(50 * time.Millisecond)
			forged := forge(says(asks, []string{Audience}, time.Hour), 1+n+5000*sources)
			if got := g.admit(t.Context(), from(1+n%sources), forged); got == nil {
				t.Fatal("a forged token is accepted")
			} else if got.code == http.StatusTooManyRequests {
				refused++
			}
			if n%1000 == 0 {
				if got := g.admit(t.Context(), from(0), token); got != nil {
					t.Errorf("meanwhile: %+v", got)
				}
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.known) > g.limits.most || len(g.sources) > g.limits.most || refused < 4900 {
			t.Errorf("%d tokens and %d addresses are remembered, %d refused", len(g.known), len(g.sources), refused)
		}
		return i.count() - before
	}
	// 250 seconds each, in which the accepted token is reviewed twice.
	if n := flood(1000); n > 8+250/5+1+2 {
		t.Errorf("from 1,000 addresses: %d reviews", n)
	}
	if n := flood(1); n > 3+250/30+1+2 {
		t.Errorf("from one address: %d reviews", n)
	}
	c.add(g.limits.accepted)
	if got := g.admit(t.Context(), from(0), token); got != nil {
		t.Errorf("after the flood: %+v", got)
	}
}

func TestParseAccount(t *testing.T) {
	if a, err := ParseAccount("selvage/selvage-mesh"); err != nil || a.user() != "system:serviceaccount:selvage:selvage-mesh" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, text := range []string{"", "selvage", "/selvage", "selvage/", "a/b/c", "a/b:c", "a:b/c", "a/B", strings.Repeat("a", 300) + "/b"} {
		if a, err := ParseAccount(text); err == nil {
			t.Errorf("%q is %+v", text, a)
		}
	}
}

// TestBadTokens: what is wrong with the files is an error at the start.
func TestBadTokens(t *testing.T) {
	for name, spoil := range map[string]func(o *Options){
		"no token":       func(o *Options) { o.Tokens.File += ".none" },
		"two tokens":     func(o *Options) { write(t, o.Tokens.File, "a b") },
		"an empty token": func(o *Options) { write(t, o.Tokens.File, "") },
		"a damaged key":  func(o *Options) { write(t, o.Tokens.KeyFile, "x") },
		"a key that cannot be kept": func(o *Options) {
			o.Tokens.KeyFile = filepath.Join(o.Tokens.File, "mesh.key")
		},
	} {
		o, _, _, _ := newTokens(t)
		spoil(&o)
		s, err := Listen(o)
		if err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), "--mesh-") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
