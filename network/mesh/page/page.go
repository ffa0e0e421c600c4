// Package page serves the view of the cluster as a web page, which follows it by server-sent events. The page is one
// HTML file, one style sheet and a few scripts, embedded in the program; it loads nothing else.
//
// The nodes are queried only while a page is open, and one of them for its detail only while that is. Each view is
// compared with the one before, and a page gets the nodes that have changed since what it was last sent, however many
// views that was ago: a slow page costs no memory.
//
// What nodes say is untrusted. The scripts insert it as text only, and the policy that each answer carries forbids
// inline scripts, foreign sources, and the insertion of HTML (https://www.w3.org/TR/CSP3/, trusted types).
package page

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"path"
	"time"
)

// Options say what is served, and how.
type Options struct {
	Source Source
	Detail Detail // nil: the page has none
	// TLS are the settings of a server that demands certificates of its clients. nil: plain HTTP, for a listener on a
	// loopback address only. Requests for other names than that are then refused, so that no foreign web page can read
	// this one by a name of its own that leads here (DNS rebinding).
	TLS *tls.Config
}

const (
	// mostPages is how many pages may follow at the same time.
	mostPages = 16
	// patience is how long a client may take: for a handshake, to send a request, to read one answer or event.
	patience = 30 * time.Second
	// heartbeat is the longest time between two writes to a page: so one that is gone is noticed.
	heartbeat = 15 * time.Second
	// maxHeader is the size of a request, in bytes. The HTTP server adds 4,096.
	maxHeader = 8 << 10
)

//go:embed assets
var assets embed.FS

// server serves the page.
type server struct {
	feed     *feed
	details  *details
	local    bool // plain HTTP, on a loopback address
	now      func() time.Time
	patience time.Duration
}

// Serve serves the page until ctx ends, and closes l.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	s := &server{
		feed: newFeed(o.Source, mostPages), details: newDetails(o.Detail, mostPages), local: o.TLS == nil,
		now: time.Now, patience: patience,
	}
	return s.serve(ctx, l, o.TLS)
}

func (s *server) serve(ctx context.Context, l net.Listener, secure *tls.Config) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	web := &http.Server{
		Handler: s, Protocols: &protocols, TLSConfig: secure, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: s.patience, ReadTimeout: s.patience, IdleTimeout: s.patience,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // of clients that cannot connect
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.feed.run(ctx) }()
	stop := context.AfterFunc(ctx, func() { _ = web.Close() })
	err := web.Serve(l)
	stop()
	cancel()
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// security are the headers of every answer.
var security = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cache-Control":                "no-store",
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range security {
		w.Header().Set(name, value)
	}
	switch {
	case s.local && !isLoopback(r.Host):
		http.Error(w, "this page is served for names of the loopback interface only, such as 127.0.0.1",
			http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		w.Header().Set("Connection", "close") // the body is not read
		http.Error(w, "want no body", http.StatusRequestEntityTooLarge)
	case r.URL.Path == "/events":
		s.events(w, r)
	case r.URL.Path == "/detail":
		s.detail(w, r)
	default:
		s.file(w, r)
	}
}

// isLoopback reports whether the host of a request is a name of the loopback interface.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	if len(host) > 1 && host[0] == '[' {
		host = host[1 : len(host)-1]
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// types are the types of the files: those that package mime knows depend on the machine.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// file serves one of the files.
func (s *server) file(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if r.URL.Path == "/" {
		name = "index.html"
	}
	data, err := assets.ReadFile("assets/" + name)
	if err != nil || path.Dir(r.URL.Path) != "/" {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(s.now().Add(s.patience))
	w.Header().Set("Content-Type", types[path.Ext(name)])
	_, _ = w.Write(data) // fails if the client has disconnected
}

// events sends the view, and then what changes, until the client disconnects or reads too slowly.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	if !s.feed.join() {
		http.Error(w, "too many pages follow already", http.StatusServiceUnavailable)
		return
	}
	defer s.feed.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // nothing more is read
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var view uint64
	for {
		u, latest, changed := s.feed.since(view)
		if err := control.SetWriteDeadline(s.now().Add(s.patience)); err != nil {
			return
		}
		var err error
		if latest > view {
			err = writeEvent(w, u)
			view = latest
		} else {
			_, err = io.WriteString(w, ": \n\n") // a comment
		}
		if err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-beat.C:
		}
	}
}

// writeEvent writes an update as one event, a node at a time.
func writeEvent(w io.Writer, u update) error {
	h, err := json.Marshal(u.header)
	if err != nil {
		return err
	}
	kind := "change"
	if u.whole {
		kind = "view"
	}
	if _, err := io.WriteString(w, "event: "+kind+"\ndata: {\"header\":"+string(h)+",\"nodes\":["); err != nil {
		return err
	}
	for i, n := range u.nodes {
		if i > 0 {
			n = append(json.RawMessage{','}, n...)
		}
		if _, err := w.Write(n); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, "]}\n\n")
	return err
}
