package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/network/node/status"
)

// A goroutine of net/http sleeps for half a second before it closes a connection whose request was not read to the end
// (rstAvoidanceDelay in net/http/server.go). It is no leak, and on an idle machine it outlives the tests.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// daemon is a Source that says what it is told to.
type daemon struct {
	status status.Status
	err    error
}

func (d *daemon) Status(context.Context) (status.Status, error) { return d.status, d.err }
func (d *daemon) Peers(context.Context) ([]status.Peer, error) {
	return []status.Peer{{Key: "10.5.3.0-24", Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.3.0/24")}}}, d.err
}
func (d *daemon) Explain(_ context.Context, a netip.Addr) (status.Explanation, error) {
	return status.Explanation{Address: a, OK: true, Verdict: "it is here"}, d.err
}
func (d *daemon) StoreReport(context.Context) (status.StoreReport, error) {
	return status.StoreReport{Endpoints: []status.StoreEndpoint{{URL: "http://192.0.2.9:2379", Version: "3.6.1"}}}, d.err
}
func (d *daemon) RotateKey(_ context.Context, force bool) (status.Rotation, error) {
	return status.Rotation{Stage: "requested", Force: force}, d.err
}

func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// serve serves a daemon on a socket until the test ends.
func serve(t *testing.T, d *daemon) (socket string, s *Server) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "s.sock")
	s, err := Listen(Options{Socket: socket, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, d) }()
	t.Cleanup(func() { cancel(); <-done })
	return socket, s
}

func TestSocket(t *testing.T) {
	d := &daemon{status: status.Status{Node: "node1", State: status.Ready}}
	socket, _ := serve(t, d)
	c := status.NewClient(socket)
	if s, err := c.Status(t.Context()); err != nil || s.Node != "node1" || s.State != status.Ready {
		t.Errorf("status %+v, %v", s, err)
	}
	if p, err := c.Peers(t.Context()); err != nil || len(p) != 1 || p[0].Subnets[0].String() != "10.5.3.0/24" {
		t.Errorf("peers %+v, %v", p, err)
	}
	for _, address := range []string{"10.5.3.7", "fd00:5::7"} {
		a := netip.MustParseAddr(address)
		if e, err := c.Explain(t.Context(), a); err != nil || e.Address != a || !e.OK {
			t.Errorf("explain %+v, %v", e, err)
		}
	}
	if r, err := c.Store(t.Context()); err != nil || len(r.Endpoints) != 1 || r.Endpoints[0].Version != "3.6.1" {
		t.Errorf("the store %+v, %v", r, err)
	}
	var query status.QueryError
	if _, err := c.Explain(t.Context(), netip.Addr{}); !errors.As(err, &query) || !strings.HasPrefix(err.Error(), "want ?address=") {
		t.Errorf("no address: %v", err)
	}
	d.err = errors.New("stuck")
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: stuck") {
		t.Errorf("a daemon that is stuck: %v", err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
}

func TestSocketTaken(t *testing.T) {
	socket, _ := serve(t, &daemon{})
	if _, err := Listen(Options{Socket: socket, Log: quiet()}); err == nil || errors.Is(err, ErrSocket) || !strings.Contains(err.Error(), "another selvaged runs here") {
		t.Errorf("two daemons on one socket: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "s.sock")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Options{Socket: stale, Log: quiet()})
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Listen(Options{Socket: filepath.Join(socket, "below", "s.sock"), Log: quiet()}); !errors.Is(err, ErrSocket) {
		t.Errorf("a directory that cannot be made: %v", err)
	}
	if _, err := Listen(Options{Healthz: "192.0.2.1:80", Log: quiet()}); err == nil || !strings.Contains(err.Error(), "--healthz-port") {
		t.Errorf("an address that is not here: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	if _, err := status.NewClient(path).Status(t.Context()); !errors.Is(err, status.ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
}

// TestHealth has /healthz fail with a stuck loop only, and /readyz for whatever is not in place.
func TestHealth(t *testing.T) {
	cut := status.Status{State: status.Degraded, Cut: []string{"IPv6"}, Problems: []status.Problem{{Topic: "peers", Cuts: []string{"IPv6"}}}}
	for _, tt := range []struct {
		name                    string
		d                       daemon
		healthz, ready, traffic int // the last with --ready-requires=traffic
	}{
		{"ready", daemon{status: status.Status{State: status.Ready}}, 200, 200, 200},
		{"starting", daemon{status: status.Status{State: status.Starting}}, 200, 503, 503},
		{"degraded by etcd alone", daemon{status: status.Status{State: status.Degraded}}, 200, 200, 200},
		{"a program of the fast path is missing", daemon{status: status.Status{State: status.Ready, Entries: map[string]status.Count{"program": {Pending: 1, Optional: true}}}}, 200, 200, 200},
		{"a route is missing", daemon{status: status.Status{State: status.Degraded, Entries: map[string]status.Count{"route": {Pending: 1}}}}, 200, 503, 503},
		{"traffic is cut", daemon{status: cut}, 200, 200, 503},
		{"stuck", daemon{err: context.DeadlineExceeded}, 503, 503, 503},
	} {
		for path, want := range map[string]int{"/healthz": tt.healthz, "/readyz": tt.ready, "/readyz?": tt.traffic} {
			s := &Server{source: &tt.d, log: quiet(), traffic: strings.HasSuffix(path, "?")}
			h := s.health(http.NewServeMux())
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s: %s answers %d %q, want %d", tt.name, path, w.Code, w.Body, want)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	encrypted := 4998
	st := status.Status{
		Version: "v1.2.3", State: status.Ready, Since: time.Unix(1700000000, 0), Problems: make([]status.Problem, 2),
		Peers:    status.PeerCounts{Programmed: 4998, Pending: 1, Grace: 1, Quarantined: 3},
		Entries:  map[string]status.Count{"route": {Wanted: 5000, Present: 4999, Pending: 1}},
		Failures: map[string]int{"route": 4}, Overruns: 2,
		Leases: 5000,
		Probes: []status.Probes{{Family: "IPv4", Reachable: 3, Unreachable: 1, MaxRTT: 1500 * time.Microsecond, Sent: 100, Lost: 7}},
		Lease:  &status.Lease{Expires: time.Unix(1700086400, 0)},
		Backend: &status.Backend{Encrypted: &encrypted, Encryption: status.EncryptionRequired, Devices: []status.Device{
			{Name: "flannel.1", Present: true, Drops: &status.Drops{Received: 1, Sent: 2, ReceiveErrors: 3, SendErrors: 4}}, {Name: "flannel-v6.1"},
			{Name: "flannel-wg", UserSpace: &status.UserSpace{PID: 4711, Ours: true, Ended: 3, Hung: 1, Lost: 2}},
		}, Sessions: []status.Sessions{
			{Device: "flannel-wg", Live: 4990, Idle: 7, Silent: 1, Oldest: time.Unix(1699999900, 0), Received: 5000, Sent: 6000},
			{Device: "flannel-wg-2", Idle: 1},
		}, Rotation: &status.Rotation{Stage: "offered"}},
		Filter: status.Filter{Mode: "nftables", InForce: true},
		Pods:   &status.Pods{Count: 3, Bridges: []status.PodBridge{{Pods: 1, InSync: true}, {Name: "cni0", Pods: 2}}},
		Enforcement: &status.Enforcement{Pods: 20, Sets: 3, Elements: 40, Chains: 5, Waiting: 1, Repairs: 2,
			Drops: []status.PolicyDrops{
				{Namespace: "shop", Direction: "ingress", Cause: "isolated", Policy: "shop/db", Count: 7}},
			Sources: []status.PolicySource{{Name: "networkpolicies", Objects: 12}, {Name: "pods", Objects: 20}}},
		FastPath: &status.FastPath{InUse: true, Ports: 3, Peers: 4999, Flushes: 5, Slow: make([]status.SlowPort, 1),
			Packets: map[string]uint64{"sent": 6, "received": 7, "unknown": 8}},
	}
	st.SetStore(status.Store{Kind: status.KindEtcd, StoreConnection: status.StoreConnection{
		LastContact: time.Unix(1700000009, 500e6), LastEvent: time.Unix(1700000008, 0), Latency: 1500 * time.Microsecond,
		Sent: 100, Received: 200, Requests: map[string]uint64{"Txn": 3, "Watch": 3}, Failed: map[string]uint64{"Txn": 1},
	}})
	st.Repairs.Add("route", "missing", 7)
	st.Passes.Add(2 * time.Millisecond)
	s := &Server{source: &daemon{status: st}, log: quiet(), now: func() time.Time { return time.Unix(1700000010, 0) }}
	w := httptest.NewRecorder()
	s.metrics(http.NewServeMux()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var got strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "selvage_") || strings.HasPrefix(line, "# HELP selvage_") || strings.HasPrefix(line, "# TYPE selvage_") {
			got.WriteString(line)
		}
	}
	want, err := os.ReadFile("testdata/metrics.txt")
	if os.Getenv("UPDATE") != "" {
		err = os.WriteFile("testdata/metrics.txt", []byte(got.String()), 0o644)
		want = []byte(got.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got (UPDATE=1 writes it):\n%s\nwant:\n%s", &got, want)
	}
	// A daemon that does not answer makes the scrape fail, and not show zeros.
	s.source = &daemon{err: errors.New("stuck")}
	w = httptest.NewRecorder()
	s.metrics(http.NewServeMux()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("a scrape of a stuck daemon: %d", w.Code)
	}
}

// TestJSON holds what scripts rest on: the names of fields.
func TestJSON(t *testing.T) {
	const (
		common = `{"version":"","node":"","started":"0001-01-01T00:00:00Z","state":"","since":"0001-01-01T00:00:00Z","problems":null,` +
			`"filter":{"in_force":false,"vtep_filter":false},"leases":0,"peers":{"programmed":0,"pending":0,"grace":0,"quarantined":0},"entries":null,` +
			`"repairs":{"total":0},"passes":{"count":0,"seconds":0,"within":[0,0,0,0,0,0,0,0,0,0]},`
		connection = `"revision":0,"latency_ns":0,"last_contact":"0001-01-01T00:00:00Z","sent_bytes":0,"received_bytes":0}`
	)
	for kind, want := range map[string]string{
		status.KindEtcd:       common + `"store":{"kind":"etcd",` + connection + `,"etcd":{` + connection + `,"subnet_file":""}`,
		status.KindKubernetes: common + `"store":{"kind":"kubernetes",` + connection + `,"subnet_file":""}`,
	} {
		var st status.Status
		st.SetStore(status.Store{Kind: kind})
		b, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != want {
			t.Errorf("%s: got  %s\nwant %s", kind, b, want)
		}
	}
}

// refusing is a listener that cannot accept connections.
type refusing struct{ closed chan struct{} }

// tooMany is what a process without free file descriptors gets.
type tooMany struct{ error }

func (tooMany) Timeout() bool   { return true }
func (tooMany) Temporary() bool { return true }

func (l refusing) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		return nil, tooMany{errors.New("too many open files")}
	}
}

func (l refusing) Close() error   { close(l.closed); return nil }
func (l refusing) Addr() net.Addr { return &net.UnixAddr{Name: "socket"} }

// TestLinesWithoutDescriptors: a server that can accept no connection for an hour tries again, and logs that seldom.
func TestLinesWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		logger := logrus.New()
		logger.SetOutput(&out)
		s := &Server{
			log: logger, now: time.Now, handlers: []http.Handler{http.NewServeMux()},
			listeners: []net.Listener{refusing{make(chan struct{})}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s.Serve(ctx, nil)
		if n := strings.Count(out.String(), "\n"); n == 0 || n > 80 {
			t.Errorf("%d lines in an hour:\n%.500s", n, out.String())
		}
	})
}
