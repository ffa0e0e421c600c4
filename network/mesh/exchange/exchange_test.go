package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// daemon is a Source. While it is stuck, it does not answer.
type daemon struct {
	node  string
	stuck atomic.Bool
	asked atomic.Int64

	drops   []status.Drop // nil: no policies are enforced
	repairs []status.Repair
}

func (d *daemon) Drops(_ context.Context, _ bool, yield func(status.Drop) error) error {
	if d.drops == nil {
		return status.ErrNoPolicies
	}
	for _, x := range d.drops {
		if err := yield(x); err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) Status(ctx context.Context) (status.Status, error) {
	d.asked.Add(1)
	if d.stuck.Load() {
		<-ctx.Done()
		return status.Status{}, ctx.Err()
	}
	return status.Status{Node: d.node, State: status.Ready, Lease: &status.Lease{Key: "key"}, Repairs: status.Repairs{Last: d.repairs}}, nil
}

// pki is a directory with the certificates of a cluster.
type pki struct {
	t      testing.TB
	dir    string
	ca     *certs.Authority
	signed int
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	var err error
	if p.ca, err = certs.New(p.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	return p
}

// sign makes a certificate for servers at 127.0.0.1, and for clients, unless the changes say otherwise.
func (p *pki) sign(name string, changes ...func(*x509.Certificate)) Files {
	p.t.Helper()
	p.signed++
	path := filepath.Join(p.dir, fmt.Sprint(name, p.signed))
	if err := p.ca.Sign(path, append([]func(*x509.Certificate){certs.For("127.0.0.1")}, changes...)...); err != nil {
		p.t.Fatal(err)
	}
	return Files{CA: p.ca.File, Cert: path + ".pem", Key: path + ".key"}
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }

// only makes a certificate that is for nothing else.
func only(usage x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} }
}

// logged is the log of a server.
type logged struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// freePort returns a port of an address that was free a moment ago.
func freePort(t testing.TB, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve serves the summary of d until the test ends. It returns once there is one.
func serve(t testing.TB, f Files, l limits, d *daemon) (*Server, *logged) {
	t.Helper()
	out := &logged{}
	log := logrus.New()
	log.SetOutput(out)
	s, err := listen(Options{Address: freePort(t, "127.0.0.1"), Files: f, Log: log}, l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, d) }()
	t.Cleanup(func() { cancel(); <-done })
	await(t, "a summary", func() bool { return s.last.Load() != nil })
	return s, out
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for !is() {
		if t.Context().Err() != nil {
			t.Fatalf("%s: it does not come to that", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// patient is longer than any answer takes on a busy machine.
const patient = time.Minute

// patiently are the daemon's limits with more time for clients, for a busy machine.
func patiently() limits {
	l := daemonLimits
	l.client = patient
	return l
}

// askOne asks a server as selvaged mesh does.
func askOne(t testing.TB, s *Server, f Files, serverName string) mesh.Answer {
	t.Helper()
	q := Query{Files: f, Port: s.Access().Port, ServerName: serverName, Timeout: patient, Parallel: 1}
	answers, err := Ask(t.Context(), q, []mesh.Target{{Public: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0]
}

// TestWhoIsToldWhat: a server tells its summary to a client with a certificate of the cluster's authority, and a client takes one from a server with
// a certificate of it for the server's address. All others learn nothing.
func TestWhoIsToldWhat(t *testing.T) {
	ours, theirs := newPKI(t), newPKI(t)
	both := func(f Files) Files { f.CA = ours.ca.File; return f } // it trusts our authority, and shows what it has
	named := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"selvage-mesh"} }
	well := ours.sign("well")
	for _, tt := range []struct {
		name           string
		server, client Files
		serverName     string
		want           status.Reason // empty: the summary
	}{
		{"well", well, ours.sign("client"), "", ""},
		{"a client's certificate without a name", well, ours.sign("client", certs.For()), "", ""},
		{"a client of another cluster that trusts ours", well, both(theirs.sign("client")), "", mesh.CertificateRefused},
		{"an expired client", well, ours.sign("client", expired), "", mesh.CertificateRefused},
		{"a client with a certificate for servers", well, ours.sign("client", only(x509.ExtKeyUsageServerAuth)), "", mesh.CertificateRefused},
		{"a client of another cluster", well, theirs.sign("client"), "", mesh.BadCertificate},
		{"a server of another cluster", both(theirs.sign("server")), well, "", mesh.BadCertificate},
		{"an expired server", ours.sign("server", expired), well, "", mesh.BadCertificate},
		{"a server with a certificate for clients", ours.sign("server", only(x509.ExtKeyUsageClientAuth)), well, "", mesh.BadCertificate},
		{"a server with another node's certificate", ours.sign("server", certs.For("127.0.0.2")), well, "", mesh.BadCertificate},
		{"a server with the common name", ours.sign("server", named), well, "selvage-mesh", ""},
		{"a server without the common name", well, well, "selvage-mesh", mesh.BadCertificate},
		{"a server with another common name", ours.sign("server", named), well, "other", mesh.BadCertificate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := serve(t, tt.server, patiently(), &daemon{node: "node1"})
			got := askOne(t, s, tt.client, tt.serverName)
			if got.Code != tt.want || (got.Summary != nil) != (tt.want == "") {
				t.Fatalf("got %+v, want %q", got, tt.want)
			}
			if tt.want == "" && (got.Summary.Node != "node1" || got.Summary.Age < 0 || got.CertificateEnds.IsZero()) {
				t.Errorf("got %+v of %+v", got.Summary, got)
			}
		})
	}
}

// TestStranger: a client without a certificate, or without TLS, or of an old version of TLS, gets no answer to a request.
func TestStranger(t *testing.T) {
	p := newPKI(t)
	well := p.sign("well")
	s, _ := serve(t, well, patiently(), &daemon{node: "node1"})
	const request = "GET " + mesh.Path + " HTTP/1.1\r\nHost: x\r\n\r\n"
	id, err := well.read()
	if err != nil {
		t.Fatal(err)
	}
	old := id.client()
	old.ServerName, old.MinVersion, old.MaxVersion = "127.0.0.1", tls.VersionTLS12, tls.VersionTLS12
	for name, config := range map[string]*tls.Config{
		"no certificate": {RootCAs: id.roots, ServerName: "127.0.0.1"}, "TLS 1.2": old, "no TLS": nil,
	} {
		raw, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := raw
		if config != nil {
			c = tls.Client(raw, config)
		}
		_, _ = io.WriteString(c, request)
		got, err := io.ReadAll(c)
		raw.Close()
		if bytes.Contains(got, []byte("node1")) || bytes.Contains(got, []byte("200 OK")) {
			t.Errorf("%s: got %q", name, got)
		}
		if config != nil && (err == nil || len(got) > 0) {
			t.Errorf("%s: got %q, %v; want a refused handshake", name, got, err)
		}
	}
}

// send sends a request over TLS and returns the answer's status; 0: there was none.
func send(t *testing.T, s *Server, f Files, request string) int {
	t.Helper()
	id, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	config := id.client()
	config.ServerName = "127.0.0.1"
	c, err := tls.Dial("tcp", s.listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, request) }()
	all, _ := io.ReadAll(c) // the server can close while we write
	var code int
	_, _ = fmt.Sscanf(string(all), "HTTP/1.1 %d", &code)
	return code
}

func TestRequests(t *testing.T) {
	f := newPKI(t).sign("well")
	d := &daemon{node: "node1"}
	s, _ := serve(t, f, patiently(), d)
	asked := d.asked.Load()
	const host = " HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct {
		name, request string
		want          int
	}{
		{"the summary", "GET " + mesh.Path + host + "\r\n", http.StatusOK},
		{"another path", "GET /v1/status" + host + "\r\n", http.StatusNotFound},
		{"the root", "GET /" + host + "\r\n", http.StatusNotFound},
		{"a path that leads there", "GET /x/.." + mesh.Path + host + "\r\n", http.StatusNotFound},
		{"POST", "POST " + mesh.Path + host + "Content-Length: 0\r\n\r\n", http.StatusMethodNotAllowed},
		{"DELETE", "DELETE " + mesh.Path + host + "\r\n", http.StatusMethodNotAllowed},
		{"a body", "GET " + mesh.Path + host + "Content-Length: 3\r\n\r\nabc", http.StatusRequestEntityTooLarge},
		{"a huge body", "GET " + mesh.Path + host + "Content-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 1<<20), http.StatusRequestEntityTooLarge},
		{"a body without an end", "GET " + mesh.Path + host + "Transfer-Encoding: chunked\r\n\r\n", http.StatusRequestEntityTooLarge},
		{"a huge header", "GET " + mesh.Path + host + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"many headers", "GET " + mesh.Path + host + strings.Repeat("X: x\r\n", 1<<16) + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"a huge path", "GET /" + strings.Repeat("x", 1<<20) + host + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"nonsense", "\x00\x01\x02\r\n\r\n", http.StatusBadRequest},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", http.StatusNotFound},
	} {
		if got := send(t, s, f, tt.request); got != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, got, tt.want)
		}
	}
	for range 100 { // however many ask, the loop is asked by the clock only
		s.answer(discard{}, &http.Request{URL: &url.URL{Path: mesh.Path}, Method: http.MethodGet})
	}
	if n := d.asked.Load() - asked; n > 50 {
		t.Errorf("the daemon's loop was asked %d times", n)
	}
}

// discard is an http.ResponseWriter.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// TestStuckLoop: while the daemon's loop does not answer, requests are answered at once, with the last summary and its age.
func TestStuckLoop(t *testing.T) {
	f := newPKI(t).sign("well")
	d := &daemon{node: "node1"}
	s, _ := serve(t, f, patiently(), d)
	d.stuck.Store(true)
	asked := d.asked.Load()
	await(t, "the loop is asked", func() bool { return d.asked.Load() > asked })
	before := askOne(t, s, f, "")
	after := askOne(t, s, f, "")
	if before.Summary == nil || after.Summary == nil || after.Summary.Age <= before.Summary.Age {
		t.Errorf("%+v, then %+v", before, after)
	}
	s.last.Store(nil) // as at a start
	if got := askOne(t, s, f, ""); got.Code != mesh.NotReadyYet {
		t.Errorf("before the first summary: %+v", got)
	}
}

// TestSlowClients: clients that send nothing, or their request byte by byte, or do not read, are disconnected, and others are answered meanwhile.
func TestSlowClients(t *testing.T) {
	f := newPKI(t).sign("well")
	s, _ := serve(t, f, daemonLimits, &daemon{node: "node1"})
	id, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	config := id.client()
	config.ServerName = "127.0.0.1"
	var clients sync.WaitGroup
	ended := func(c net.Conn) { _, _ = io.Copy(io.Discard, c); c.Close() } // it returns when the server closes
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	silent, slow, drips := dial(), tls.Client(dial(), config), dial()
	if err := slow.Handshake(); err != nil {
		t.Fatal(err)
	}
	clients.Go(func() { ended(silent) })
	clients.Go(func() {
		for { // a header without an end, a byte at a time
			if _, err := io.WriteString(slow, "G"); err != nil {
				ended(slow)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	clients.Go(func() {
		for _, b := range append([]byte{22, 3, 1, 2, 0, 1, 0}, make([]byte, 1<<12)...) { // a ClientHello that never ends
			if _, err := drips.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		ended(drips)
	})
	await(t, "three slow clients", func() bool { s.listener.mu.Lock(); defer s.listener.mu.Unlock(); return s.listener.open == 3 })
	answered := func() bool { return askOne(t, s, f, "").Summary != nil } // in a moment, if the machine is busy
	await(t, "an answer beside slow clients", answered)
	clients.Wait() // for the server to close them
	await(t, "no connection", func() bool { s.listener.mu.Lock(); defer s.listener.mu.Unlock(); return s.listener.open == 0 })
}

// TestManyConnections: of 10,000 connections, few are open at the same time, and after them clients are answered.
func TestManyConnections(t *testing.T) {
	f := newPKI(t).sign("well")
	l := patiently()
	l.every, l.perSource = 0, 1000 // the number is what counts here
	s, out := serve(t, f, l, &daemon{node: "node1"})
	peak := func() int { s.listener.mu.Lock(); defer s.listener.mu.Unlock(); return s.listener.peak }
	const total, workers = 10_000, 100
	var first []net.Conn
	for range 2 * l.open {
		c, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, c)
	}
	await(t, "as many as the limit are open", func() bool { return peak() >= l.open })
	var dialing sync.WaitGroup
	for range workers {
		dialing.Go(func() {
			var held []net.Conn
			for range total / workers {
				c, err := net.Dial("tcp", s.listener.Addr().String())
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				if held = append(held, c); len(held) > 3 { // some stay for a while
					held[0].Close()
					held = held[1:]
				}
			}
			for _, c := range held {
				c.Close()
			}
		})
	}
	dialing.Wait()
	for _, c := range first {
		c.Close()
	}
	if n := peak(); n != l.open {
		t.Errorf("%d connections were open at the same time, want the limit %d", n, l.open)
	}
	await(t, "no connection", func() bool { s.listener.mu.Lock(); defer s.listener.mu.Unlock(); return s.listener.open == 0 })
	// The kernel's queue may still hold closed ones, of which the server takes as many as the limit at a time.
	await(t, "an answer after 10,000 connections", func() bool { return askOne(t, s, f, "").Summary != nil })
	if n := strings.Count(out.String(), "\n"); n > 2*6 {
		t.Errorf("%d lines are logged", n)
	}
}

// TestOneSource: connections of one address do not keep out those of another.
func TestOneSource(t *testing.T) {
	f := newPKI(t).sign("well")
	s, _ := serve(t, f, patiently(), &daemon{node: "node1"})
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	for i := range 2 * daemonLimits.perSource {
		c, err := from.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i >= daemonLimits.perSource {
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("connection %d of one source: read %d bytes, want it closed", i, n)
			}
		}
	}
	if got := askOne(t, s, f, ""); got.Summary == nil {
		t.Errorf("from another source: %+v", got)
	}
	sources := map[string]string{"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::"}
	for at, want := range sources {
		if got := sourceOf(connFrom{at: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))}); got.String() != want {
			t.Errorf("%s counts for %s, want %s", at, got, want)
		}
	}
}

type connFrom struct {
	net.Conn
	at net.Addr
}

func (c connFrom) RemoteAddr() net.Addr { return c.at }

func TestPace(t *testing.T) {
	l := limits{every: 10 * time.Millisecond, burst: 4}
	var p pacer
	now := time.Now()
	var waited time.Duration
	for i := range 100 {
		wait := p.wait(l, now)
		if i < l.burst && wait != 0 {
			t.Errorf("connection %d of a burst waits for %s", i, wait)
		}
		now, waited = now.Add(wait), waited+wait
	}
	if want := 96 * l.every; waited != want {
		t.Errorf("100 connections wait for %s, want %s", waited, want)
	}
	if wait := p.wait(l, now.Add(time.Hour)); wait != 0 {
		t.Errorf("after a rest: %s", wait)
	}
}

// TestRotation: new certificates are used without a restart. While a certificate and its key do not fit, as between two renames, those before stay.
func TestRotation(t *testing.T) {
	ours, next := newPKI(t), newPKI(t)
	f := ours.sign("node")
	s, out := serve(t, f, patiently(), &daemon{node: "node1"})
	var clock atomic.Int64 // the files are looked at once a second
	s.keeper.now = func() time.Time { return time.Now().Add(time.Duration(clock.Add(2)) * time.Second) }
	if got := askOne(t, s, f, ""); got.Summary == nil {
		t.Fatalf("at first: %+v", got)
	}
	other, client := next.sign("node"), next.sign("client")
	replace := func(from, to string) {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to+".new", data, 0o600)
		}
		if err = errors.Join(err, os.Rename(to+".new", to)); err != nil {
			t.Fatal(err)
		}
	}
	replace(other.Cert, f.Cert)
	if got := askOne(t, s, Files{CA: f.CA, Cert: client.Cert, Key: client.Key}, ""); got.Code != mesh.CertificateRefused {
		t.Errorf("with half of the files: %+v", got)
	}
	if !strings.Contains(out.String(), "cannot be used") {
		t.Errorf("logged: %s", out)
	}
	replace(other.Key, f.Key)
	replace(other.CA, f.CA)
	if got := askOne(t, s, client, ""); got.Summary == nil {
		t.Errorf("with the next authority: %+v", got)
	}
	before := ours.sign("before")
	before.CA = next.ca.File
	if got := askOne(t, s, before, ""); got.Code != mesh.CertificateRefused {
		t.Errorf("with the former authority's certificate: %+v", got)
	}
}

// TestUnanswered: why a node does not answer.
func TestUnanswered(t *testing.T) {
	f := newPKI(t).sign("well")
	loopback := netip.MustParseAddr("127.0.0.1")
	free := netip.MustParseAddrPort(freePort(t, "127.0.0.1")).Port()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	mutePort := netip.MustParseAddrPort(mute.Addr().String()).Port()
	for _, tt := range []struct {
		name   string
		port   uint16
		public []netip.Addr
		want   status.Reason
	}{
		{"no process listens", free, []netip.Addr{loopback}, mesh.NotListening},
		{"a process that does not answer", mutePort, []netip.Addr{loopback}, mesh.NoAnswer},
		{"no address", free, nil, mesh.NoAddress},
	} {
		q := Query{Files: f, Port: tt.port, Timeout: 50 * time.Millisecond, Parallel: 3}
		got, err := Ask(t.Context(), q, []mesh.Target{{Public: tt.public}})
		if err != nil || got[0].Code != tt.want || got[0].Summary != nil {
			t.Errorf("%s: %+v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
	// The second address is tried, too.
	s, _ := serve(t, f, patiently(), &daemon{node: "node1"})
	q := Query{Files: f, Port: s.Access().Port, Timeout: patient, Parallel: 1}
	got, err := Ask(t.Context(), q, []mesh.Target{{Public: []netip.Addr{netip.MustParseAddr("127.0.0.2"), loopback}}})
	if err != nil || got[0].Summary == nil {
		t.Errorf("at the second address: %+v, %v", got, err)
	}
	// This node itself is asked at its local address, and has the certificate of its public IP.
	got, err = Ask(t.Context(), q, []mesh.Target{{Public: []netip.Addr{loopback}, Local: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}})
	if err != nil || got[0].Code != mesh.NotListening {
		t.Errorf("at a local address where nothing listens: %+v, %v", got, err)
	}
}

// TestHostileAnswers: a node with a certificate answers with something else.
func TestHostileAnswers(t *testing.T) {
	f := newPKI(t).sign("well")
	for name, answer := range map[string]string{
		"no HTTP": "\x1b]0;x\x07\r\n\r\n", "not JSON": "HTTP/1.1 200 OK\r\n\r\nx", "another version": "HTTP/1.1 200 OK\r\n\r\n{\"version\":2}",
		"without an end": "HTTP/1.1 200 OK\r\n\r\n{\"version\":1,\"node\":\"" + strings.Repeat("x", 1<<20), "nothing": "",
		"a name that a terminal acts on": "HTTP/1.1 200 OK\r\n\r\n{\"version\":1,\"node\":\"\\u001b]0;x\\u0007\"}",
		"a redirect":                     "HTTP/1.1 302 Found\r\nLocation: https://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		k, err := newKeeper(f, logrus.New())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			raw, err := l.Accept()
			if err != nil {
				return
			}
			defer raw.Close()
			c := tls.Server(raw, k.server())
			_, _ = c.Read(make([]byte, 1<<12))
			_, _ = io.WriteString(c, answer)
			_ = c.CloseWrite()
		}()
		q := Query{Files: f, Port: netip.MustParseAddrPort(l.Addr().String()).Port(), Timeout: patient, Parallel: 1}
		got, err := Ask(t.Context(), q, []mesh.Target{{Public: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}})
		if s := got[0].Summary; s != nil && s.Node == "?]0;x?" {
			got[0] = mesh.Answer{Code: "cleaned"}
		}
		if err != nil || got[0].Summary != nil || got[0].Code == "" || strings.ContainsAny(fmt.Sprint(got[0].Text), "\x1b\x07\n") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		l.Close()
		<-done
	}
}

func TestBadOptions(t *testing.T) {
	f := newPKI(t).sign("well")
	log := logrus.New()
	log.SetOutput(io.Discard)
	for address, files := range map[string]Files{
		"8473": f, "127.0.0.1:0": f, "127.0.0.1:x": f, "127.0.0.1:18473": {CA: f.CA, Cert: f.Cert}, "127.0.0.1:18474": {CA: "/nowhere", Cert: f.Cert, Key: f.Key},
		"127.0.0.1:18475": {CA: f.Key, Cert: f.Cert, Key: f.Key}, "127.0.0.1:18476": {CA: f.CA, Cert: f.CA, Key: f.Key}, "192.0.2.1:18477": f,
	} {
		s, err := Listen(Options{Address: address, Files: files, Log: log})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "--mesh-") {
			t.Errorf("%s with %+v: %v, want an error that names the flag", address, files, err)
		}
	}
	if (*Server)(nil).Access() != nil {
		t.Error("no server has access")
	}
}
