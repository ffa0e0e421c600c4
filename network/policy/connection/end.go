package connection

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// World is what is known of a cluster.
type World struct {
	policy.Source
	Pods     func() iter.Seq[*policy.Pod]    // all pods, in any order
	Policies func() iter.Seq[*policy.Policy] // all NetworkPolicies, in any order
}

// End is an end of a connection: a pod, or an address.
type End struct {
	Pod       *policy.Pod   // nil: the end is an address, whether or not a pod has it
	Addresses [2]netip.Addr // by [subnet.Family]; invalid: none
}

// String returns "namespace/name", or the address.
func (e End) String() string {
	if e.Pod != nil {
		return e.Pod.Namespace + "/" + e.Pod.Name
	}
	for _, a := range e.Addresses {
		if a.IsValid() {
			return a.String()
		}
	}
	return "no address"
}

// ErrEnd is returned for a text that names no end of a connection.
var ErrEnd = errors.New("want namespace/pod or an IP address")

// End returns the end that a text names: namespace/pod, the name of a pod if only one pod has it, or an address.
func (w World) End(text string) (End, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return End{}, fmt.Errorf("%q: %w without a zone", text, ErrEnd)
		}
		a = a.Unmap()
		var e End
		e.Addresses[subnet.FamilyOf(a)] = a
		return e, nil
	}
	named := w.podsNamed(func(p *policy.Pod) bool { return text == p.Namespace+"/"+p.Name || text == p.Name })
	switch len(named) {
	case 0:
		return End{}, fmt.Errorf("%q: %w; there is no pod with this name%s", text, ErrEnd, w.similar(text))
	case 1:
		return endOf(named[0])
	}
	return End{}, fmt.Errorf("%q: %w; %d pods have this name, in different namespaces", text, ErrEnd, len(named))
}

// podsNamed returns pods by name, in the order of their names. Of several with one name, it returns the one that takes
// precedence.
func (w World) podsNamed(is func(*policy.Pod) bool) (all []*policy.Pod) {
	byName := map[string]*policy.Pod{}
	for p := range w.Pods() {
		if !is(p) {
			continue
		}
		key := p.Namespace + "/" + p.Name
		if other := byName[key]; other == nil || !other.Counts() && p.Counts() || p.Precedes(other) {
			byName[key] = p
		}
	}
	for _, p := range byName {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *policy.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return all
}

// similar returns a phrase with the names that a text may have meant.
func (w World) similar(text string) string {
	var names []string
	for p := range w.Pods() {
		names = append(names, p.Namespace+"/"+p.Name)
	}
	slices.Sort(names)
	const few = 3
	like := subnet.Similar(text, slices.Compact(names))
	if len(like) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(like[:min(len(like), few)], " or ") + "?"
}

// endOf returns a pod as an end. It is an error if the pod has no address.
func endOf(p *policy.Pod) (End, error) {
	e := End{Pod: p, Addresses: p.Addresses}
	switch {
	case p.Ended:
		return e, fmt.Errorf("pod %s has ended, so no policy is about it", e)
	case e.Addresses == [2]netip.Addr{} && p.HostNetwork:
		return e, fmt.Errorf("pod %s uses the network of its node, so no policy is about it; give the node's address",
			e)
	case e.Addresses == [2]netip.Addr{}:
		return e, fmt.Errorf("pod %s has no address yet", e)
	}
	return e, nil
}

// Ends returns the ends that a list of texts names. Beside what [World.End] takes, a text can be a pattern of
// namespace/pod as [path.Match] takes it: "shop/*", "*/*". Pods that no policy is about do not match a pattern. A text
// that begins with "!" takes out of the list what it names. It is an error if a text names nothing.
func (w World) Ends(texts []string) (all []End, err error) {
	var out []End
	for _, text := range texts {
		name, negative := strings.CutPrefix(text, "!")
		found, err := w.matching(name)
		if err != nil {
			return nil, err
		}
		if negative {
			out = append(out, found...)
		} else {
			all = append(all, found...)
		}
	}
	var kept []End
	for _, e := range all {
		if !slices.Contains(out, e) && !slices.Contains(kept, e) {
			kept = append(kept, e)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("%q: %w; the list names nothing", texts, ErrEnd)
	}
	return kept, nil
}

func (w World) matching(text string) (all []End, err error) {
	if !strings.ContainsAny(text, "*?[") {
		e, err := w.End(text)
		return []End{e}, err
	}
	if _, err := path.Match(text, ""); err != nil || strings.Count(text, "/") != 1 {
		return nil, fmt.Errorf("%q: %w, or a pattern of namespace/pod such as shop/*", text, ErrEnd)
	}
	named := w.podsNamed(func(p *policy.Pod) bool {
		ok, _ := path.Match(text, p.Namespace+"/"+p.Name) // the pattern is valid
		return ok && p.Counts()
	})
	for _, p := range named {
		e, err := endOf(p)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%q: %w; no pod matches", text, ErrEnd)
	}
	return all, nil
}
