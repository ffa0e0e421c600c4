package etcd

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// patience is how long a test waits for what must happen soon.
const patience = 2 * time.Minute

// fastElection has a member elect itself in a tenth of the usual time, at each of the many starts. There is nobody else to
// be elected, however busy the machine.
var fastElection = []string{"--heartbeat-interval=10", "--election-timeout=100"}

// shared is the etcd of all tests that do it no harm. Each has a prefix of its own.
var shared struct {
	sync.Mutex
	server *etcdserver.Server
}

func TestMain(m *testing.M) {
	// Many of these tests wait for etcd most of their time.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "selvage-etcd-")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		shared.server, err = etcdserver.Start(ctx, etcdserver.Options{Dir: dir, Flags: fastElection})
		cancel()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// The server's own goroutine waits for its process.
		goleak.IgnoreCurrent(),
		goleak.Cleanup(func(code int) {
			shared.server.Kill()
			os.RemoveAll(dir)
			os.Exit(code)
		}))
}

// server starts an etcd that a test may do harm to.
func server(t *testing.T, opts etcdserver.Options) *etcdserver.Server {
	t.Helper()
	opts.Dir = t.TempDir()
	opts.Flags = append(opts.Flags, fastElection...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := etcdserver.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// restart kills an etcd and starts it again. An orderly stop would take seconds while watches are open.
func restart(t *testing.T, s *etcdserver.Server) {
	t.Helper()
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

// admin is a bare client.
func admin(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// quietZap is a logger for bare clients.
func quietZap() *zap.Logger { return zap.NewNop() }

// handled asks an etcd that is served in the clear how many requests it has had since it was started, by method.
func handled(t *testing.T, s *etcdserver.Server) map[string]int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp := must[*http.Response](t)(client.Get(s.Endpoint() + "/metrics"))
	defer resp.Body.Close()
	body := must[[]byte](t)(io.ReadAll(resp.Body))
	counts := map[string]int{}
	for _, line := range startedLine.FindAllSubmatch(body, -1) {
		n := must[float64](t)(strconv.ParseFloat(string(line[2]), 64))
		if n > 0 {
			counts[string(line[1])] += int(n)
		}
	}
	return counts
}

var startedLine = regexp.MustCompile(`(?m)^grpc_server_started_total\{grpc_method="(\w+)".* (\S+)$`)

// open opens a store.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// must fails the test on an error of a bare client.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// cluster is an empty prefix of an etcd.
func cluster(t *testing.T, endpoint string) (storetest.Cluster, Options) {
	log, _ := logger(t) // shown if the test fails
	o := Options{Endpoints: []string{endpoint}, Prefix: "/" + rand.Text(), LeaseTTL: 2 * time.Second, ListSpread: -1, Log: log}
	c := admin(t, endpoint)
	return storetest.Cluster{
		Open: func(t *testing.T) subnet.Store { return open(t, o) },
		OpenLasting: func(t *testing.T) subnet.Store {
			lasting := o
			lasting.LeaseTTL = DefaultLeaseTTL
			return open(t, lasting)
		},
		Write: func(t *testing.T, key, value string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			must[*clientv3.PutResponse](t)(c.Put(ctx, o.Prefix+"/"+key, value))
		},
		Delete: func(t *testing.T, key string) {
			t.Helper()
			must[*clientv3.DeleteResponse](t)(c.Delete(t.Context(), o.Prefix+"/"+key))
		},
		Expire: func(t *testing.T, r subnet.Record) {
			t.Helper()
			must[*clientv3.LeaseRevokeResponse](t)(c.Revoke(t.Context(), clientv3.LeaseID(r.LeaseID)))
		},
	}, o
}

// requests counts what a store asks of etcd.
type requests struct {
	sync.Mutex
	count map[string]int
}

func (r *requests) note(method string) {
	r.Lock()
	defer r.Unlock()
	if r.count == nil {
		r.count = map[string]int{}
	}
	r.count[method]++
}

// take returns the counts since it was last called.
func (r *requests) take() map[string]int {
	r.Lock()
	defer r.Unlock()
	count := r.count
	r.count = nil
	return count
}

func (r *requests) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			r.note(method)
			return next(ctx, method, req, reply, conn, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			r.note(method)
			return next(ctx, desc, conn, method, opts...)
		}),
	}
}

// logged keeps what is logged.
type logged struct {
	sync.Mutex
	entries []*logrus.Entry
}

func (l *logged) Levels() []logrus.Level { return logrus.AllLevels }

func (l *logged) Fire(e *logrus.Entry) error {
	l.Lock()
	defer l.Unlock()
	l.entries = append(l.entries, e)
	return nil
}

// logger returns a logger that writes to the test and whose lines are kept.
func logger(t *testing.T) (*logrus.Logger, *logged) {
	l, kept := logrus.New(), &logged{}
	l.SetOutput(t.Output())
	l.AddHook(kept)
	return l, kept
}

// lines returns message and error of each line.
func (l *logged) lines() []string {
	l.Lock()
	defer l.Unlock()
	var lines []string
	for _, e := range l.entries {
		line := e.Message
		if err, ok := e.Data[logrus.ErrorKey].(error); ok {
			line += ": " + err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}
