package page

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
)

const (
	// restAtLeast is the shortest pause between two queries of the nodes.
	restAtLeast = 2 * time.Second
	// restFactor is the length of the pause after a query, as a multiple of the query's: 1,000 nodes take seconds of
	// CPU time, theirs and this process's.
	restFactor = 4
)

// Source asks all nodes, and makes the view of the cluster.
type Source func(ctx context.Context) (mesh.Cluster, error)

// header is what the page shows of the cluster as a whole.
type header struct {
	At       time.Time    `json:"at"` // of the latest view; zero: there is none yet
	Counts   mesh.Counts  `json:"counts"`
	Versions []mesh.Tally `json:"versions"`
	Configs  []mesh.Tally `json:"configs"`
	Networks []string     `json:"networks"`
	// Groupings are the ways to show many nodes; empty: the page shows each node by itself.
	Groupings []grouping `json:"groupings"`
	Took      int64      `json:"took_ms"`         // how long the query took
	Rest      int64      `json:"rest_ms"`         // the pause after it
	Error     string     `json:"error,omitempty"` // why the latest query failed; the nodes are those of At
}

// node is a node as the page has it.
type node struct {
	mesh.Node
	Rank   mesh.Rank `json:"rank"`
	Groups []int     `json:"groups,omitempty"` // its index in each of header.Groupings
}

// encoded is a node's JSON, and the number of the view in which it last changed.
type encoded struct {
	json    json.RawMessage
	changed uint64
}

// feed queries the nodes while there are readers, and has what each of them has not read yet.
type feed struct {
	source Source
	most   int // readers

	mu      sync.Mutex
	readers int
	joined  chan struct{} // size one: a reader has joined
	view    uint64        // number of the latest view
	whole   uint64        // readers of an earlier view get everything: a node has gone since
	header  header
	nodes   map[string]encoded // by key
	order   []string           // the keys, the worst node first
	zones   map[string]string  // that nodes have said that they are in, by key
	changed chan struct{}      // closed at the next change
}

func newFeed(source Source, most int) *feed {
	return &feed{source: source, most: most, joined: make(chan struct{}, 1), nodes: map[string]encoded{},
		changed: make(chan struct{})}
}

// join counts a reader. It is false if there are too many.
func (f *feed) join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers >= f.most {
		return false
	}
	f.readers++
	select {
	case f.joined <- struct{}{}:
	default:
	}
	return true
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
}

func (f *feed) isRead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers > 0
}

// run queries the nodes until ctx ends.
func (f *feed) run(ctx context.Context) {
	for {
		for !f.isRead() {
			select {
			case <-f.joined:
			case <-ctx.Done():
				return
			}
		}
		began := time.Now()
		view, err := f.source(ctx)
		took := time.Since(began)
		if ctx.Err() != nil {
			return
		}
		rest := max(restAtLeast, restFactor*took)
		f.publish(view, err, took, rest)
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// publish takes in a view, or why there is none.
func (f *feed) publish(c mesh.Cluster, err error, took, rest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view++
	f.header.Took, f.header.Rest, f.header.Error = took.Milliseconds(), rest.Milliseconds(), ""
	if err != nil {
		f.header.Error = err.Error()
	} else {
		f.header.At, f.header.Counts, f.header.Versions = c.At, c.Counts, c.Versions
		f.header.Configs, f.header.Networks = c.Configs, c.Networks
		f.take(c.Nodes)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// take takes in all nodes.
func (f *feed) take(nodes []mesh.Node) {
	groupings, groupOf := grouped(nodes, f.zones)
	f.header.Groupings = groupings
	f.noteZones(nodes)
	f.order = f.order[:0]
	next := make(map[string]encoded, len(nodes))
	for i, n := range nodes {
		b, err := json.Marshal(node{withoutClock(n), n.Worst(), groupOf[i]})
		if err != nil { // a time beyond the year 9999
			n.Summary = nil
			b, _ = json.Marshal(node{n, n.Worst(), groupOf[i]})
		}
		last, known := f.nodes[n.Key]
		if !known || string(last.json) != string(b) {
			last = encoded{b, f.view}
		}
		if _, twice := next[n.Key]; !twice {
			f.order = append(f.order, n.Key)
		}
		next[n.Key] = last
	}
	for key := range f.nodes {
		if _, still := next[key]; !still {
			f.whole = f.view
		}
	}
	f.nodes = next
}

// noteZones notes which zones the nodes are in: one that is missing later is shown there all the same.
func (f *feed) noteZones(nodes []mesh.Node) {
	next := map[string]string{}
	for _, n := range nodes {
		if zone := zoneOf(n, f.zones); zone != "" {
			next[n.Key] = zone
		}
	}
	f.zones = next
}

// withoutClock removes what changes with every answer.
func withoutClock(n mesh.Node) mesh.Node {
	if n.Summary != nil {
		s := *n.Summary
		s.Now, s.Age = time.Time{}, 0
		n.Summary = &s
	}
	return n
}

// update is what a reader has not read yet.
type update struct {
	header header
	whole  bool // it replaces all that the reader has
	nodes  []json.RawMessage
}

// since returns what has changed since a view, the number of the latest one, and a channel that is closed at the next
// change. Readers begin with 0.
func (f *feed) since(view uint64) (u update, latest uint64, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u = update{header: f.header, whole: view == 0 || view < f.whole}
	for _, key := range f.order {
		if n := f.nodes[key]; u.whole || n.changed > view {
			u.nodes = append(u.nodes, n.json)
		}
	}
	return u, f.view, f.changed
}
