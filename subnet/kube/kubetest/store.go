package kubetest

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// key is where an object is: a resource such as "/v1/nodes", and the object's name after its namespace.
type key struct {
	resource, name string
}

// change is one step of the history.
type change struct {
	version int64
	key     key
	before  *object // nil: created
	after   *object // nil: deleted
}

// store holds objects, and what has happened to them since a version. It is not safe for concurrent use.
type store struct {
	version int64
	since   int64 // the version that the history begins after
	objects map[key]*object
	history []change
	moved   chan struct{} // closed at the next change
}

func newStore() *store {
	return &store{version: 1, since: 1, objects: map[key]*object{}, moved: make(chan struct{})}
}

// put stores an object, or removes it if it is nil. It returns the version of the change.
func (s *store) put(k key, o *object) int64 {
	s.version++
	before := s.objects[k]
	if o != nil {
		o.version = s.version
		s.objects[k] = o
	} else {
		delete(s.objects, k)
	}
	s.history = append(s.history, change{version: s.version, key: k, before: before, after: o})
	s.wake()
	return s.version
}

func (s *store) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// compact forgets the history.
func (s *store) compact() { s.since, s.history = s.version, nil }

// listed is an object in a list.
type listed struct {
	name   string
	object *object
}

// at returns the objects of a resource as they were at a version, by name; false if that is forgotten.
func (s *store) at(resource string, version int64) ([]listed, bool) {
	if version < s.since || version > s.version {
		return nil, false
	}
	then := map[string]*object{}
	for k, o := range s.objects {
		if k.resource == resource {
			then[k.name] = o
		}
	}
	for _, c := range slices.Backward(s.history) {
		if c.version <= version {
			break
		}
		if c.key.resource != resource {
			continue
		}
		if c.before == nil {
			delete(then, c.key.name)
		} else {
			then[c.key.name] = c.before
		}
	}
	list := make([]listed, 0, len(then))
	for name, o := range then {
		list = append(list, listed{name, o})
	}
	slices.SortFunc(list, func(a, b listed) int { return cmp.Compare(a.name, b.name) })
	return list, true
}

// after returns the changes of a resource after a version, and the channel that is closed at the next; false if they
// are forgotten.
func (s *store) after(resource string, version int64) (list []change, moved <-chan struct{}, known bool) {
	if version < s.since {
		return nil, nil, false
	}
	i, _ := slices.BinarySearchFunc(s.history, version+1, func(c change, v int64) int {
		return cmp.Compare(c.version, v)
	})
	for _, c := range s.history[i:] {
		if c.key.resource == resource {
			list = append(list, c)
		}
	}
	return list, s.moved, true
}

// Backup is the state of a server at one time, see [Server.Backup].
type Backup struct {
	version  int64
	identity [2]string
	objects  map[key]*object
}

func (s *store) backup() Backup { return Backup{version: s.version, objects: maps.Clone(s.objects)} }

func (s *store) restore(b Backup) {
	s.version, s.objects = b.version, maps.Clone(b.objects)
	s.compact()
	s.wake()
}

// selects reports whether a list or a watch includes an object: it is in the namespace, and matches the field selector,
// of which metadata.name, spec.nodeName and status.phase are known.
func (t target) selects(r *http.Request, name string, o *object) bool {
	if in, rest, namespaced := strings.Cut(name, "/"); namespaced {
		if t.namespace != "" && in != t.namespace {
			return false
		}
		name = rest
	}
	for term := range strings.SplitSeq(r.URL.Query().Get("fieldSelector"), ",") {
		field, want, _ := strings.Cut(term, "=")
		field, other := strings.CutSuffix(field, "!")
		has := name
		if part, of, nested := strings.Cut(field, "."); field == "" {
			continue
		} else if !nested || part != "metadata" {
			f, err := o.fields()
			if err != nil {
				return false
			}
			has = text(sub(f, part), of)
		}
		if (has == want) == other {
			return false
		}
	}
	return true
}
