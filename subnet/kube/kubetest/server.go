package kubetest

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say what kind of server is started. The zero value is one in the clear, for everybody.
type Options struct {
	// Address is where the server listens, HOST:PORT; empty: a port of 127.0.0.1 that is chosen at the first Start.
	Address string
	// CertFile and KeyFile (PEM): the server speaks TLS and HTTP/2.
	CertFile, KeyFile string
	// Token is what requests have to carry; empty: nothing.
	Token string
	// NoStreamingLists rejects sendInitialEvents, as a server does in which the feature is off.
	NoStreamingLists bool
	// Bookmarks is how often a watch gets one; 0: a second. A real server sends one about once a minute.
	Bookmarks time.Duration
}

// Server is a stand-in for an API server. Its methods are safe for concurrent use, but for Start and Stop.
type Server struct {
	opts    Options
	address string // once it has listened
	http    *http.Server
	serving sync.WaitGroup
	another bool // see Another

	mu       *sync.Mutex // of the store, and all below
	store    *store
	begins   int64 // the version that the server's cache begins with, see Another
	token    string
	identity [2]string // of flow control: see identify
	denied   []string
	lacking  []string // see Lack
	frozen   int64    // the version of the cache that does not follow; 0: it does
	rejects  []rejection
	requests []Request
	watches  int           // that are being answered
	stop     chan struct{} // closed when watches have to end
}

// rejection is an answer that is given to a request in the place of the right one.
type rejection struct {
	code       int
	retryAfter int // seconds
}

// Request is one that the server has received.
type Request struct {
	Verb     string // "GET", "LIST", "WATCH", "POST", "PATCH", "DELETE"
	Path     string
	Query    url.Values
	Header   http.Header
	Protocol string // such as "HTTP/2.0"
	User     string // the common name of the client's certificate; empty: it has none
}

// New returns a server that has not been started.
func New(o Options) *Server {
	if o.Bookmarks == 0 {
		o.Bookmarks = time.Second
	}
	s := &Server{opts: o, token: o.Token, mu: &sync.Mutex{}, store: newStore(), stop: make(chan struct{})}
	s.identity = [2]string{newUID(), newUID()}
	close(s.stop)
	return s
}

// Another returns another API server of the same cluster: it has the same objects, and all else of its own. Its cache
// begins at its start, as that of a real server does: a watch cannot go on from before. Wipe neither of the two.
func (s *Server) Another() *Server {
	n := New(s.opts)
	n.opts.Address = ""
	n.mu, n.store, n.identity, n.another = s.mu, s.store, s.identity, true
	return n
}

// Start listens on a port of its own, the same after each Stop, and serves.
func (s *Server) Start() error {
	at := s.address
	if at == "" {
		at = cmp.Or(s.opts.Address, "127.0.0.1:0")
	}
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	s.mu.Lock()
	s.stop = make(chan struct{})
	if s.another {
		s.begins = s.store.version
	}
	s.mu.Unlock()
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: quiet(), ReadHeaderTimeout: time.Minute}
	if s.opts.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.opts.CertFile, s.opts.KeyFile)
		if err != nil {
			listener.Close()
			return err
		}
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"},
			ClientAuth: tls.RequestClientCert}
		listener = tls.NewListener(listener, s.http.TLSConfig)
	}
	server := s.http
	s.serving.Go(func() { _ = server.Serve(listener) })
	return nil
}

// Stop closes the listener and all connections, and waits for the requests to end. The objects remain.
func (s *Server) Stop() {
	if s.http == nil {
		return
	}
	s.EndWatches()
	s.http.Close()
	s.serving.Wait()
	s.http = nil
}

// EndWatches ends all watches in an orderly way, as a server does that is about to stop.
func (s *Server) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	if s.http != nil {
		s.stop = make(chan struct{})
	}
}

// AdminToken is that of requests that are always accepted, and neither counted nor rejected.
const AdminToken = "kubetest-admin"

// Admin returns a client that changes the server's objects. A client for TLS is the caller's to set.
func (s *Server) Admin() Admin { return Admin{URL: s.URL(), Token: AdminToken} }

// URL is where the server listens.
func (s *Server) URL() string {
	if s.opts.CertFile != "" {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// identify sets the headers of flow control.
func (s *Server) identify(h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range []string{"X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"} {
		if s.identity[i] != "" {
			h.Set(name, s.identity[i])
		}
	}
}

// failure is an answer that is no success, as a Status.
type failure struct {
	code       int
	reason     string
	message    string
	cause      string
	retryAfter int
}

func (f *failure) Error() string { return f.message }

// fields returns the Status.
func (f *failure) fields() fields {
	s := fields{
		"kind": "Status", "apiVersion": "v1", "metadata": fields{}, "status": "Failure", "message": f.message,
		"reason": f.reason, "code": f.code,
	}
	details := fields{}
	if f.cause != "" {
		details["causes"] = []any{fields{"reason": f.cause, "message": f.message}}
	}
	if f.retryAfter > 0 {
		details["retryAfterSeconds"] = f.retryAfter
	}
	if len(details) > 0 {
		s["details"] = details
	}
	return s
}

// target is what a path names.
type target struct {
	group, version, resource   string
	namespace, name, subsource string
}

// stored is the resource's name in the store.
func (t target) stored() string { return t.group + "/" + t.version + "/" + t.resource }

func (t target) key() key {
	name := t.name
	if t.namespace != "" {
		name = t.namespace + "/" + name
	}
	return key{t.stored(), name}
}

// right names what a verb on the target needs, such as "patch nodes/status".
func (t target) right(verb string) string {
	right := strings.ToLower(verb) + " " + t.resource
	if verb == "POST" {
		right = "create " + t.resource
	}
	if t.subsource != "" {
		right += "/" + t.subsource
	}
	return right
}

// parse parses a path such as /api/v1/nodes/a/status or /apis/GROUP/v1/namespaces/NAME/RESOURCE.
func parse(path string) (t target, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		t.version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		t.group, t.version, parts = parts[1], parts[2], parts[3:]
	default:
		return t, false
	}
	if parts[0] == "namespaces" && len(parts) >= 3 {
		t.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 3 {
		return t, false
	}
	parts = append(parts, "", "")
	t.resource, t.name, t.subsource = parts[0], parts[1], parts[2]
	return t, true
}

// serve answers a request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.identify(w.Header())
	t, known := parse(r.URL.Path)
	verb := r.Method
	if known && t.name == "" && verb == http.MethodGet {
		verb = "LIST"
		if on, err := strconv.ParseBool(r.URL.Query().Get("watch")); err == nil && on {
			verb = "WATCH"
		}
	}
	if err := s.admit(verb, t, known, r); err != nil {
		s.fail(w, r, err)
		return
	}
	if known && s.lacks(t.resource) {
		http.NotFound(w, r)
		return
	}
	var err error
	switch {
	case r.URL.Path == "/version":
		err = s.write(w, r, http.StatusOK, fields{"major": "1", "minor": "34", "gitVersion": "v1.34.4"})
	case r.URL.Path == "/readyz", r.URL.Path == "/livez":
		_, err = w.Write([]byte("ok"))
	case !known:
		err = &failure{code: 404, reason: "NotFound", message: "the server could not find the requested resource"}
	case t.resource == "selfsubjectaccessreviews":
		err = s.review(w, r)
	case verb == "LIST":
		err = s.list(w, r, t)
	case verb == "WATCH":
		err = s.watch(w, r, t)
	default:
		err = s.single(w, r, t)
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

// admit says why a request is rejected.
func (s *Server) admit(verb string, t target, known bool, r *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") == "Bearer "+AdminToken {
		return nil
	}
	user := ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		user = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	s.requests = append(s.requests, Request{verb, r.URL.Path, r.URL.Query(), r.Header.Clone(), r.Proto, user})
	if len(s.rejects) > 0 {
		x := s.rejects[0]
		s.rejects = s.rejects[1:]
		return &failure{code: x.code, reason: "TooManyRequests", message: "rejected by the test",
			retryAfter: x.retryAfter}
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token && r.URL.Path != "/version" {
		if r.Header.Get("Authorization") == "" {
			return forbidden("system:anonymous", t.right(verb))
		}
		return &failure{code: 401, reason: "Unauthorized", message: "Unauthorized"}
	}
	right := t.right(verb)
	if !known {
		right = strings.ToLower(verb) + " " + r.URL.Path
	}
	if slices.Contains(s.denied, right) || t.name != "" && slices.Contains(s.denied, right+" "+t.name) {
		return forbidden("system:serviceaccount:kube-system:selvage", right)
	}
	return nil
}

func forbidden(user, right string) error {
	verb, resource, _ := strings.Cut(right, " ")
	plain, _, _ := strings.Cut(resource, "/")
	return &failure{code: 403, reason: "Forbidden", message: fmt.Sprintf(
		"%s is forbidden: User %q cannot %s resource %q in API group \"\" at the cluster scope", plain, user, verb,
		resource)}
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *failure
	if !errors.As(err, &f) {
		if errors.Is(err, context.Canceled) {
			return
		}
		f = &failure{code: 500, reason: "InternalError", message: err.Error()}
	}
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	_ = s.write(w, r, f.code, f.fields())
}

// accepts says which form of an object a request asks for.
func accepts(r *http.Request) (protobuf, partial bool) {
	accept := r.Header.Get("Accept")
	return strings.HasPrefix(accept, protobufType), strings.Contains(accept, ";as=PartialObjectMetadata")
}

const protobufType = "application/vnd.kubernetes.protobuf"

// write answers with one object.
func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, f fields) error {
	protobuf, metadataOnly := accepts(r)
	if metadataOnly && text(f, "kind") != "Status" {
		f = partial(f)
	}
	if protobuf {
		w.Header().Set("Content-Type", protobufType)
		w.WriteHeader(code)
		_, err := w.Write(encode(f))
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	return json.NewEncoder(w).Encode(f)
}

// encode encodes an object in protobuf.
func encode(f fields) []byte {
	raw := wire
	if text(f, "kind") == "Status" {
		raw = statusWire
	}
	return envelope(text(f, "apiVersion"), text(f, "kind"), raw(f))
}
