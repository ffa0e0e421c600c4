package policy

import (
	"iter"
	"slices"
)

// label is one label.
type label struct{ key, value string }

// scope is a set of namespaces that groups select from: one by its name, those that a selector selects, or all. Groups
// with equal scopes share it, so that a namespace has to be compared once with each.
type scope struct {
	name       string // of the only namespace
	all        bool   // also namespaces that are not known
	selector   Selector
	peers      groups
	subjects   groups
	namespaces map[*space]bool
}

// has reports whether the scope has a namespace, as it is now.
func (s *scope) has(n *space) bool {
	switch {
	case s.all:
		return true
	case s.name != "":
		return s.name == n.name
	}
	return n.known && s.selector.Matches(n.labels)
}

// key returns the scope's key among all.
func (g Group) scopeKey() string {
	if g.Namespace != "" {
		return "=" + g.Namespace
	}
	return "~" + g.Namespaces.String()
}

// everywhere is the key of the scope of all namespaces.
const everywhere = "*"

// groups is an index of the groups of one scope: by the labels that they ask for, so that a pod is compared only with
// those that may select it.
type groups struct {
	byText  map[string]*group
	byLabel map[label][]*group
	rest    []*group // those that ask for no label by its value
}

// keys returns the labels of which a pod needs one to be selected: those of the requirement with the fewest values.
func keys(s Selector) (list []label) {
	for _, r := range s.requirements {
		if r.Operator == In && (list == nil || len(r.Values) < len(list)) {
			list = nil
			for _, v := range r.Values {
				list = append(list, label{r.Key, v})
			}
		}
	}
	return list
}

func (x *groups) add(g *group) {
	if x.byText == nil {
		x.byText, x.byLabel = map[string]*group{}, map[label][]*group{}
	}
	x.byText[g.pods.String()] = g
	list := keys(g.pods)
	for _, l := range list {
		x.byLabel[l] = append(x.byLabel[l], g)
	}
	if list == nil {
		x.rest = append(x.rest, g)
	}
}

func (x *groups) remove(g *group) {
	delete(x.byText, g.pods.String())
	list := keys(g.pods)
	for _, l := range list {
		if x.byLabel[l] = without(x.byLabel[l], g); len(x.byLabel[l]) == 0 {
			delete(x.byLabel, l)
		}
	}
	if list == nil {
		x.rest = without(x.rest, g)
	}
}

// selecting yields the groups that select pods with these labels.
func (x *groups) selecting(l Labels) iter.Seq[*group] {
	return func(yield func(*group) bool) {
		for _, g := range x.rest {
			if g.pods.Matches(l) && !yield(g) {
				return
			}
		}
		if len(x.byLabel) == 0 {
			return
		}
		for key, value := range l.All() {
			for _, g := range x.byLabel[label{key, value}] {
				if g.pods.Matches(l) && !yield(g) {
					return
				}
			}
		}
	}
}

// without returns a list without an item, of which the order does not matter.
func without[T comparable](list []T, item T) []T {
	i := slices.Index(list, item)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	var zero T
	list[i], list[last] = list[last], zero
	return list[:last]
}

// space is a namespace that is known, or has pods or policies.
type space struct {
	name     string
	known    bool
	labels   Labels
	kinds    map[Labels]*kind
	scopes   []*scope // that have it
	policies map[string]*rules
}

// kind is the pods of one namespace with equal labels. All policies select all of them or none, so what is known of
// one is known of the others: a pod of a kind that exists is compared with no selector.
type kind struct {
	space    *space
	labels   Labels
	pods     []*member
	local    int       // how many are on this node
	peers    []*group  // that select it
	subjects []*group  // that select it; only while it has local pods
	chains   [2]*chain // by Direction, for its local pods; nil: nothing restricts them
}

// member is a pod in a kind.
type member struct {
	Pod
	kind  *kind
	index int32   // in kind.pods
	local bool    // it is on this node
	owns  [2]bool // by family: it is the owner of its address
}
