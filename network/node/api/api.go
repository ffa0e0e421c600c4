// Package api serves a daemon's state: [status.Status] and the other reports as JSON over a unix socket, for selvaged's
// own commands; and liveness, readiness and metrics over TCP, for Kubernetes and Prometheus. The API is read-only, but
// for the reports of the CNI plugin, see [Attacher], and for [Source.RotateKey].
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/serverlog"
)

// Source is the daemon. Each method returns soon. If ctx ends first, the daemon's loop is stuck, and the method returns
// an error. StoreReport queries the store; when ctx ends, it returns the answers it has by then.
type Source interface {
	Status(ctx context.Context) (status.Status, error)
	Peers(ctx context.Context) ([]status.Peer, error)
	Explain(ctx context.Context, a netip.Addr) (status.Explanation, error)
	StoreReport(ctx context.Context) (status.StoreReport, error)
	// RotateKey begins to change the key by which peers know the node, unless that is under way. With force, peers that
	// do not answer are not waited for.
	RotateKey(ctx context.Context, force bool) (status.Rotation, error)
}

// Options say where to serve. An empty address is not served.
type Options struct {
	Socket  string // path of the unix socket
	Healthz string // address and port of /healthz and /readyz
	Metrics string // address and port of /metrics, /healthz and /readyz
	// Traffic makes /readyz fail while the traffic of a family is cut.
	Traffic bool
	Network string // prefix of the network's objects in the store
	// Attacher receives the reports of the CNI plugin, over the socket. While it is set and the socket is served, the
	// status file has to name the socket: subnetfile.Status.PolicySocket. nil: network policies are not enforced.
	Attacher Attacher
	// Policies answers what network policies do on this node, over the socket. nil: they are not enforced.
	Policies Policies
	Log      logrus.FieldLogger
}

// answerTimeout is how long the daemon's loop may take to answer. A pass over 10,000 peers takes half a second.
const answerTimeout = 5 * time.Second

// Server has the open listeners.
type Server struct {
	source    Source
	network   string
	traffic   bool // see Options.Traffic
	attacher  Attacher
	policies  Policies
	log       logrus.FieldLogger
	now       func() time.Time
	listeners []net.Listener
	handlers  []http.Handler
}

// Listen opens the listeners, so that an address that is in use is reported before anything else is done.
func Listen(o Options) (*Server, error) {
	s := &Server{network: o.Network, log: o.Log, now: time.Now, traffic: o.Traffic, attacher: o.Attacher,
		policies: o.Policies}
	err := s.listenSocket(o.Socket)
	if err == nil && o.Healthz != "" && o.Healthz != o.Metrics {
		err = s.listenTCP("--healthz-ip, --healthz-port", o.Healthz, s.health(http.NewServeMux()))
	}
	if err == nil && o.Metrics != "" {
		err = s.listenTCP("--metrics-addr", o.Metrics, s.metrics(s.health(http.NewServeMux())))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) listenTCP(flag, address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return errno.Explain(errno.ListenTCP, fmt.Errorf("%s: %w", flag, err))
	}
	s.listeners, s.handlers = append(s.listeners, l), append(s.handlers, h)
	return nil
}

// ErrSocket is returned if the socket cannot be created.
var ErrSocket = errors.New("cannot create the socket")

// maxSocketPath is how long the path of a unix socket may be (struct sockaddr_un in unix(7), with a final zero byte).
const maxSocketPath = 107

// listenSocket replaces a socket on which no process listens any more. Only root may connect, since leases can contain
// keys of other systems.
func (s *Server) listenSocket(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("--socket: %w: the path has %d bytes, and unix sockets allow %d: choose a shorter one",
			ErrSocket, len(path), maxSocketPath)
	}
	failed := func(err error) error {
		return errno.Explain(errno.ListenUnix, fmt.Errorf("--socket: %w: %w", ErrSocket, err))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return failed(err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return s.busy(path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(err)
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return failed(err)
	}
	s.listeners, s.handlers = append(s.listeners, l), append(s.handlers, s.local())
	return nil
}

// ErrOtherNetwork is returned if the daemon of another network listens on the socket.
var ErrOtherNetwork = errors.New("name another socket")

// busy returns the error for a socket on which a process listens.
func (s *Server) busy(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	other, err := status.NewClient(path).Status(ctx)
	if err != nil || other.Prefix == "" || other.Prefix == s.network {
		return fmt.Errorf("--socket: another selvaged runs here: a process listens on %s already", path)
	}
	return fmt.Errorf("--socket: the selvaged of the network %s listens on %s: %w", other.Prefix, path, ErrOtherNetwork)
}

// Close closes the listeners, if Serve has not been called.
func (s *Server) Close() (err error) {
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// Serve answers requests with the daemon's state until ctx ends, and closes the listeners.
func (s *Server) Serve(ctx context.Context, source Source) {
	s.source = source
	var serving sync.WaitGroup
	for i, l := range s.listeners {
		server := &http.Server{
			Handler: s.handlers[i], ReadHeaderTimeout: answerTimeout, ConnContext: withPeer,
			ErrorLog: serverlog.New(s.log, "", s.now),
		}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		serving.Go(func() {
			defer stop()
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				s.log.WithError(err).Errorf("stopped serving %s", l.Addr())
			}
		})
	}
	serving.Wait()
}

// local handles the requests on the socket.
func (s *Server) local() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+status.PathStatus, answer(func(ctx context.Context, _ *http.Request) (any, error) {
		return s.source.Status(ctx)
	}))
	mux.HandleFunc("GET "+status.PathPeers, answer(func(ctx context.Context, _ *http.Request) (any, error) {
		return s.source.Peers(ctx)
	}))
	store := answer(func(ctx context.Context, _ *http.Request) (any, error) { return s.source.StoreReport(ctx) })
	mux.HandleFunc("GET "+status.PathStore, store)
	mux.HandleFunc("GET "+status.PathEtcd, store)
	mux.HandleFunc("GET "+status.PathExplain, answer(func(ctx context.Context, r *http.Request) (any, error) {
		a, err := netip.ParseAddr(r.URL.Query().Get("address"))
		if err != nil || a.Zone() != "" {
			return nil, errAddress
		}
		return s.source.Explain(ctx, a.Unmap())
	}))
	mux.HandleFunc("POST "+status.PathRotateKey, answer(func(ctx context.Context, r *http.Request) (any, error) {
		return s.source.RotateKey(ctx, r.URL.Query().Get("force") == "true")
	}))
	s.reports(mux)
	s.policyAnswers(mux)
	return mux
}

var errAddress = errors.New("want ?address= with an IP address such as 10.5.29.7")

// answer returns a handler that encodes the value of ask as JSON.
func answer(ask func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		value, err := ask(ctx, r)
		switch {
		case errors.Is(err, errAddress), errors.As(err, new(status.QueryError)):
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value) // fails if the client has disconnected
	}
}

// health adds /healthz, which fails if the loop is stuck, and /readyz, which fails unless all kernel entries are in
// sync; see also [Options].Traffic.
func (s *Server) health(mux *http.ServeMux) *http.ServeMux {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := s.ask(w, r); ok {
			_, _ = w.Write([]byte("ok\n"))
		}
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		st, ok := s.ask(w, r)
		if !ok {
			return
		}
		if pending := st.Pending(); st.State == status.Starting || pending > 0 {
			http.Error(w, fmt.Sprintf("%s, %d entries pending", st.State, pending), http.StatusServiceUnavailable)
			return
		}
		if s.traffic && len(st.Cut) > 0 {
			http.Error(w, cutText(st), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

// cutText says which traffic is cut, and why.
func cutText(st status.Status) string {
	text := strings.Join(st.Cut, " and ") + " traffic is cut"
	for _, p := range st.Problems {
		if len(p.Cuts) > 0 {
			text += fmt.Sprintf("\n%s: %s", p.Topic, p.Text)
		}
	}
	return text
}

func (s *Server) ask(w http.ResponseWriter, r *http.Request) (st status.Status, ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	st, err := s.source.Status(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
	return st, err == nil
}
