package page

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
)

// Detail asks one node, by the key of its lease, for its detail.
type Detail func(ctx context.Context, key string) (mesh.Told, error)

const (
	// detailEvery is the pause between two requests to a node while its detail is open.
	detailEvery = 5 * time.Second
	// detailSoon is the same while the node examines itself.
	detailSoon = time.Second
	// maxKey is the size of a lease's key, in bytes.
	maxKey = 512
)

// details asks nodes for their detail while it is open in a page: each node once at a time, and no more often for
// several pages than for one.
type details struct {
	source Detail // nil: there is none
	slots  chan struct{}
	now    func() time.Time

	mu    sync.Mutex
	asked map[string]*asked // by key
}

// asked is the latest question to a node.
type asked struct {
	readers int
	done    chan struct{} // closed when there is an answer
	at      time.Time     // of the answer
	json    []byte
	rest    time.Duration // how long it counts
}

func newDetails(source Detail, most int) *details {
	return &details{source: source, slots: make(chan struct{}, most), now: time.Now, asked: map[string]*asked{}}
}

// get returns the detail of a node in JSON, and when to ask again. It asks unless another reader has just done so.
func (d *details) get(ctx context.Context, key string) (text []byte, rest time.Duration) {
	d.mu.Lock()
	a := d.asked[key]
	ours := a == nil || a.json != nil && d.now().Sub(a.at) >= a.rest
	if ours {
		a = &asked{done: make(chan struct{})}
		d.asked[key] = a
	}
	a.readers++
	d.mu.Unlock()
	if ours {
		d.ask(key, a)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.readers--; a.readers == 0 && d.asked[key] == a && d.now().Sub(a.at) >= a.rest {
		delete(d.asked, key)
	}
	return a.json, max(a.rest-d.now().Sub(a.at), time.Millisecond)
}

// ask asks a node. The question has a time limit of its own, and others may wait for the answer.
func (d *details) ask(key string, a *asked) {
	told, err := d.source(context.Background(), key)
	if err != nil {
		told = mesh.Told{Text: err.Error()}
	}
	rest := detailEvery
	if told.Detail != nil {
		if told.Detail.Examining {
			rest = detailSoon
		}
		told.Detail.Now = time.Time{} // it changes with every answer
	}
	text, err := json.Marshal(told)
	if err != nil { // a time beyond the year 9999
		text = []byte(`{"text":"this version cannot read the answer"}`)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.json, a.rest, a.at = text, rest, d.now()
	close(a.done)
	for other, x := range d.asked { // of nodes that are open no more
		if other != key && x.readers == 0 && d.now().Sub(x.at) >= x.rest {
			delete(d.asked, other)
		}
	}
}

// detail sends the detail of a node, and again when it has changed, until the client disconnects or reads too slowly.
func (s *server) detail(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	switch {
	case s.details.source == nil || len(key) > maxKey:
		http.Error(w, "not found", http.StatusNotFound)
		return
	case r.Method == http.MethodHead:
		return
	}
	select {
	case s.details.slots <- struct{}{}:
		defer func() { <-s.details.slots }()
	default:
		http.Error(w, "too many details are open already", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // nothing more is read
	var sent string
	for {
		text, rest := s.details.get(r.Context(), key)
		if err := control.SetWriteDeadline(s.now().Add(s.patience)); err != nil || r.Context().Err() != nil {
			return
		}
		event := ": \n\n" // a comment
		if string(text) != sent {
			sent = string(text)
			event = "event: detail\ndata: " + sent + "\n\n"
		}
		if _, err := io.WriteString(w, event); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(rest):
		}
	}
}
