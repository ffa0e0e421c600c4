package feed

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/manifest"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// Source is a code for something that is followed.
type Source string

// The sources.
const (
	Namespaces             Source = "namespaces"
	NetworkPolicies        Source = "networkpolicies"
	ClusterNetworkPolicies Source = "clusternetworkpolicies"
	Pods                   Source = "pods"  // of this node
	Peers                  Source = "peers" // the pods of other nodes, while they are needed
	Files                  Source = "files" // of a directory
)

// maxNoted is of how many objects the problems are kept and logged.
const maxNoted = 200

// State is what a feed reports.
type State struct {
	Sources []SourceState   // that are followed, by name
	Notes   []manifest.Note // what was not understood, by object
	More    bool            // there was more that was not understood
}

// SourceState is the state of a source.
type SourceState struct {
	Source   Source
	Complete bool           // the first list is complete
	Objects  int            // that are known
	Since    time.Time      // since when it cannot be followed; zero: it can
	Problem  subnet.Problem // why it cannot
}

// Report takes what a feed reports. The zero value is ready to use. It is safe for concurrent use.
type Report struct {
	mu      sync.Mutex
	sources map[Source]SourceState
	noted   map[string]noted // by object
	more    bool
}

// noted is what was not understood of a version of an object.
type noted struct {
	version int64
	notes   []manifest.Note
}

// State returns what is reported now.
func (r *Report) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := State{More: r.more, Sources: slices.SortedFunc(maps.Values(r.sources), func(a, b SourceState) int {
		return cmp.Compare(a.Source, b.Source)
	})}
	for _, object := range slices.Sorted(maps.Keys(r.noted)) {
		s.Notes = append(s.Notes, r.noted[object].notes...)
	}
	return s
}

// change changes the state of a source, and reports whether any source fails.
func (r *Report) change(s Source, f func(*SourceState)) (failing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources == nil {
		r.sources = map[Source]SourceState{}
	}
	state := r.sources[s]
	state.Source = s
	f(&state)
	r.sources[s] = state
	for _, state := range r.sources {
		failing = failing || !state.Since.IsZero()
	}
	return failing
}

func (r *Report) begin(s Source) { r.change(s, func(*SourceState) {}) }

func (r *Report) count(s Source, objects int) {
	r.change(s, func(state *SourceState) { state.Complete, state.Objects = true, objects })
}

// forget forgets a source that is not followed any more.
func (r *Report) forget(s Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sources, s)
}

// clean reports whether all was understood.
func (r *Report) clean() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.noted) == 0
}

// set replaces what was not understood of an object. It reports whether that is to be logged: once for each version.
func (r *Report) set(object string, n noted) (log bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(n.notes) == 0 {
		delete(r.noted, object)
		return false
	}
	before, known := r.noted[object]
	switch {
	case known && before.version == n.version:
		return false
	case !known && len(r.noted) >= maxNoted:
		r.more = true
		return false
	case r.noted == nil:
		r.noted = map[string]noted{}
	}
	r.noted[object] = n
	return true
}

// notUnderstood is the log line about an object.
const notUnderstood = "not all of an object of network policies was understood; what was not allows nothing"

// note reports what was not understood of a version of an object, and logs it.
func (r *Report) note(log logrus.FieldLogger, message, object string, n noted) {
	if !r.set(object, n) {
		return
	}
	const most = 3
	var list []string
	for _, n := range n.notes[:min(len(n.notes), most)] {
		list = append(list, strings.TrimPrefix(n.Problem.String(), ": "))
	}
	if more := len(n.notes) - most; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	entry := log.WithField("object", object).WithField("problems", strings.Join(list, "; "))
	if place := n.notes[0].Place; place != "" { // where the object is in a file
		entry = entry.WithField("place", place)
	}
	entry.Warn(message)
}

// note reports what was not understood of an object. bad means that the object could not be read as a whole.
func (k *kubernetes) note(kind string, o *apiserver.Object, problems []policy.Problem) (bad bool) {
	if bad = o.Bad != nil; bad {
		problems = append(unreadable(o.Bad), problems...)
	}
	if len(problems) == 0 && k.o.Report.clean() {
		return false
	}
	name := objectName(kind, apiserver.Key{Namespace: o.Namespace, Name: o.Name})
	var notes []manifest.Note
	for _, p := range problems {
		notes = append(notes, manifest.Note{Object: name, Problem: p})
	}
	k.o.Report.note(k.o.Log, notUnderstood, name, noted{o.Version, notes})
	return bad
}

// unnote forgets an object that is gone.
func (k *kubernetes) unnote(kind string, key apiserver.Key) {
	k.o.Report.set(objectName(kind, key), noted{})
}

func objectName(kind string, k apiserver.Key) string {
	return kind + " " + strings.TrimPrefix(k.Namespace+"/"+k.Name, "/")
}

// trouble takes note of a source's failures. All sources have one account of outages in common, since they have the API
// server in common.
type trouble struct {
	k      *kubernetes
	source Source
}

// Failure implements [apiserver.Trouble].
func (t trouble) Failure(err error, kind string) {
	t.k.o.Report.change(t.source, func(s *SourceState) {
		if s.Since.IsZero() {
			s.Since = time.Now()
		}
		s.Problem = apiserver.ProblemOf(err)
	})
	t.k.outage.Failure(err, kind)
}

// Over implements [apiserver.Trouble].
func (t trouble) Over() {
	failing := t.k.o.Report.change(t.source, func(s *SourceState) {
		s.Since, s.Problem = time.Time{}, subnet.Problem{}
	})
	if !failing {
		t.k.outage.Over()
	}
}

// sortedKeys returns the keys of a map in their order.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
