package exchange

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/serverlog"
)

// Source is the daemon. If ctx ends first, its loop is stuck, and Status returns an error.
type Source interface {
	Status(ctx context.Context) (status.Status, error)
	// Drops calls yield for each of the last few packets that policies denied, the oldest first, and does not ask the
	// loop. The error is [status.ErrNoPolicies] if the node enforces no policies.
	Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error
}

// Options say where a node serves its summary, and to which clients.
type Options struct {
	Address    string // address and port
	Files      Files  // of certificates by which nodes know each other
	ServerName string // see status.Mesh
	Tokens     Tokens // in place of Files
	// Detail says whether to serve a detail, too, and Examine examines the node for it; nil: it has no examination.
	Detail  bool
	Examine Examiner
	Log     logrus.FieldLogger
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
	tls      *tls.Config
	keeper   *keeper // of the certificates; nil: clients show tokens
	gate     *gate   // nil: the certificates of clients decide
	keyFile  string  // of the server's own key; empty: it has none
	key      *ecdsa.PrivateKey
	mu       sync.Mutex
	refused  backoff.Limiter // of log lines; mu guards it
	log      logrus.FieldLogger
	now      func() time.Time
	last     atomic.Pointer[published] // nil: the loop has not answered yet

	tellsDetail  bool
	examinations examinations
	source       Source          // while it serves
	serving      context.Context // the same
}

// published is the last summary, and when it was made.
type published struct {
	summary mesh.Summary
	repairs []status.Repair
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
	s := &Server{log: o.Log, now: time.Now, tellsDetail: o.Detail}
	s.examinations = examinations{examine: o.Examine, now: time.Now}
	if o.Tokens.File != "" {
		err = s.byTokens(o.Tokens)
	} else {
		err = s.byCertificates(o)
	}
	if err != nil {
		return nil, err
	}
	inner, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, errno.Explain(errno.ListenTCP, fmt.Errorf("--mesh-addr: %w", err))
	}
	s.listener = newListener(inner, l)
	if a, ok := inner.Addr().(*net.TCPAddr); ok {
		s.access.Port = a.AddrPort().Port()
	}
	return s, nil
}

// byCertificates has clients show a certificate.
func (s *Server) byCertificates(o Options) error {
	for _, f := range []struct{ flag, path string }{
		{"--mesh-cafile", o.Files.CA}, {"--mesh-certfile", o.Files.Cert}, {"--mesh-keyfile", o.Files.Key},
	} {
		if f.path == "" {
			return fmt.Errorf("--mesh-addr needs %s: nodes show each other certificates, or tokens with "+
				"--mesh-token-file", f.flag)
		}
	}
	k, err := newKeeper(o.Files, o.Log)
	if err != nil {
		return fmt.Errorf("--mesh-cafile, --mesh-certfile, --mesh-keyfile: %w", err)
	}
	s.keeper, s.tls = k, k.server()
	s.access = status.Mesh{CAFile: o.Files.CA, CertFile: o.Files.Cert, KeyFile: o.Files.Key, ServerName: o.ServerName}
	return nil
}

// byTokens has clients show a token.
func (s *Server) byTokens(t Tokens) error {
	if _, err := readToken(t.File); err != nil { // so that a mistyped name is an error at the start
		return fmt.Errorf("--mesh-token-file: %w", err)
	}
	key, err := keptKey(t.KeyFile)
	if err != nil {
		return err
	}
	cert, err := selfMade(key)
	if err != nil {
		return err
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true,
	}
	s.gate = newGate(t, daemonGate)
	s.keyFile, s.key = t.KeyFile, key
	s.access = status.Mesh{TokenFile: t.File, Key: pinOf(cert.Leaf)}
	return nil
}

// Key identifies the key of the server, if clients show tokens, see subnet.Lease.MeshKey. s may be nil.
func (s *Server) Key() string {
	if s == nil {
		return ""
	}
	return s.access.Key
}

// KeyFile returns the path of the file with the key of the server, if clients show tokens; else nothing. s may be nil.
func (s *Server) KeyFile() string {
	if s == nil {
		return ""
	}
	return s.keyFile
}

// WriteKey writes that file again, with the key in use and the mode 0600.
func (s *Server) WriteKey() error { return writeKey(s.keyFile, s.key) }

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
	s.source, s.serving = source, ctx
	defer s.examinations.running.Wait()
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
	err := server.Serve(tls.NewListener(s.listener, s.tls))
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
			p := &published{mesh.Summarize(st), st.Repairs.Last, s.now()}
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

// answer answers one request. Without a gate, the client has shown a certificate.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	last := s.last.Load()
	switch {
	case !s.admits(w, r):
		return
	case r.URL.Path != mesh.Path && r.URL.Path != mesh.DetailPath:
		http.Error(w, "want "+mesh.Path, http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	case r.ContentLength != 0:
		s.withoutBody(w)
		http.Error(w, "want no body", http.StatusRequestEntityTooLarge)
		return
	case last == nil:
		http.Error(w, "the daemon's loop has not answered yet", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == mesh.DetailPath {
		if !s.refusesDetail(w) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(s.detail(r.Context(), last)) // fails if the client has disconnected
		}
		return
	}
	m := last.summary // its lists are never changed
	m.Now = s.now()
	m.Age = m.Now.Sub(last.at)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m) // fails if the client has disconnected
}

// withoutBody has the server not wait for the body of a request.
func (s *Server) withoutBody(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(s.now())
}

// How many refused tokens are logged within refusedWindow.
const (
	refusedLines  = 6
	refusedWindow = 10 * time.Minute
)

// admits reports whether a request is answered. Otherwise it has refused it, and told the client no more than a status.
func (s *Server) admits(w http.ResponseWriter, r *http.Request) bool {
	if s.gate == nil {
		return true
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ") // RFC 6750, section 2.1
	if !bearer {
		token = ""
	}
	from := sourceAt(r.RemoteAddr)
	why := s.gate.admit(r.Context(), from, token)
	if why == nil {
		return true
	}
	s.mu.Lock()
	line := s.refused.Allow(refusedLines, refusedWindow, s.now())
	s.mu.Unlock()
	switch log := s.log.WithFields(logrus.Fields{"from": from, "because": why.why}); line {
	case backoff.Pass:
		log.Warn("mesh: token refused")
	case backoff.Last:
		log.Warn("mesh: token refused; more of them are not logged for now")
	case backoff.Drop:
	}
	if r.ContentLength != 0 {
		s.withoutBody(w)
	}
	http.Error(w, http.StatusText(why.code), why.code)
	return false
}
