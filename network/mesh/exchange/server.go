package exchange

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/serverlog"
)

// Source is the daemon. If ctx ends first, its loop is stuck, and Status returns an error.
type Source interface {
	Status(ctx context.Context) (status.Status, error)
}

// Options say where a node serves its summary, and to which clients.
type Options struct {
	Address    string // address and port
	Files      Files
	ServerName string // see status.Mesh
	Log        logrus.FieldLogger
}

const (
	// publishEvery is how often the daemon's loop is asked for its status. Requests are answered with the last summary,
	// so no client can make the loop do anything. At 5,000 peers a status takes a millisecond (BenchmarkStatus in
	// network/node).
	publishEvery = 2 * time.Second
	// statusTimeout is how long the loop may take to answer. A pass over 10,000 peers takes half a second.
	statusTimeout = 5 * time.Second
	// maxHeader is the size of a request, in bytes. The HTTP server adds 4,096.
	maxHeader = 2048
)

// Server serves a node's summary.
type Server struct {
	access   status.Mesh
	listener *listener
	keeper   *keeper
	log      logrus.FieldLogger
	now      func() time.Time
	last     atomic.Pointer[published] // nil: the loop has not answered yet
}

// published is the last summary, and when it was made.
type published struct {
	summary mesh.Summary
	at      time.Time
}

// Listen reads the files and opens the port, so that what is wrong is reported before anything else is done.
func Listen(o Options) (*Server, error) {
	return listen(o, daemonLimits)
}

func listen(o Options, l limits) (*Server, error) {
	_, text, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("--mesh-addr: %w; want an address and a port, such as :8473", err)
	}
	if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("--mesh-addr: port %q, want one from 1 to 65535, the same on all nodes", text)
	}
	for _, f := range []struct{ flag, path string }{
		{"--mesh-cafile", o.Files.CA}, {"--mesh-certfile", o.Files.Cert}, {"--mesh-keyfile", o.Files.Key},
	} {
		if f.path == "" {
			return nil, fmt.Errorf("--mesh-addr needs %s: nodes show each other certificates", f.flag)
		}
	}
	k, err := newKeeper(o.Files, o.Log)
	if err != nil {
		return nil, fmt.Errorf("--mesh-cafile, --mesh-certfile, --mesh-keyfile: %w", err)
	}
	inner, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, errno.Explain(errno.ListenTCP, fmt.Errorf("--mesh-addr: %w", err))
	}
	s := &Server{listener: newListener(inner, l), keeper: k, log: o.Log, now: time.Now}
	s.access = status.Mesh{CAFile: o.Files.CA, CertFile: o.Files.Cert, KeyFile: o.Files.Key, ServerName: o.ServerName}
	if a, ok := inner.Addr().(*net.TCPAddr); ok {
		s.access.Port = a.AddrPort().Port()
	}
	return s, nil
}

// Access returns how other nodes are asked; nil if s is.
func (s *Server) Access() *status.Mesh {
	if s == nil {
		return nil
	}
	access := s.access
	return &access
}

// Close closes the port, if Serve has not been called.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers requests until ctx ends, and closes the port.
func (s *Server) Serve(ctx context.Context, source Source) {
	patience := s.listener.limits.client
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one request for each connection needs no streams
	server := &http.Server{
		Handler: http.HandlerFunc(s.answer), Protocols: &protocols, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
		ErrorLog: serverlog.New(s.log, "mesh: ", s.now),
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	var publishing sync.WaitGroup
	publishing.Go(func() { s.publish(ctx, source) })
	defer publishing.Wait()
	err := server.Serve(tls.NewListener(s.listener, s.keeper.server()))
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.WithError(err).Errorf("stopped serving %s", s.listener.Addr())
	}
}

// publish makes a summary of the daemon's status every so often.
func (s *Server) publish(ctx context.Context, source Source) {
	var history mesh.History
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, statusTimeout)
		st, err := source.Status(asked)
		cancel()
		if err == nil { // else the age of the last summary tells
			p := &published{mesh.Summarize(st), s.now()}
			history.Add(p.at, &p.summary)
			s.last.Store(p)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answer answers one request of a client that has shown a certificate.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	last := s.last.Load()
	switch {
	case r.URL.Path != mesh.Path:
		http.Error(w, "want "+mesh.Path, http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	case r.ContentLength != 0:
		_ = http.NewResponseController(w).SetReadDeadline(s.now()) // the body is not awaited
		http.Error(w, "want no body", http.StatusRequestEntityTooLarge)
		return
	case last == nil:
		http.Error(w, "the daemon's loop has not answered yet", http.StatusServiceUnavailable)
		return
	}
	m := last.summary // its lists are never changed
	m.Now = s.now()
	m.Age = m.Now.Sub(last.at)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m) // fails if the client has disconnected
}
