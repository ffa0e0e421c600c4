package kube

import (
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// Advice implements [subnet.NodeAdviser]: it is in annotations of this node's Node. That of a Node that was deleted
// stays until there is another one.
func (s *Store) Advice() subnet.NodeAdvice {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advice
}

// advise takes in the present state of this node's Node, and reports whether its advice has changed.
func (s *Store) advise(o *apiserver.Object) (changed bool) {
	if o.Bad != nil {
		return false
	}
	a := s.names.advice(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = a != s.advice
	s.advice = a
	return changed
}

// advice returns what a person, or a cloud's controller, wrote on a Node for its daemon.
func (n names) advice(o *apiserver.Object) (a subnet.NodeAdvice) {
	var bad []string
	for _, f := range subnet.Families() {
		for _, x := range []struct {
			annotation string
			address    *netip.Addr
			source     *string
		}{
			{n.nodePublicIP[f], &a.PublicIP[f], &a.PublicIPSource[f]},
			{n.overwrite[f], &a.Announced[f], &a.AnnouncedSource[f]},
		} {
			*x.source = "annotation " + x.annotation
			text := o.Annotations[x.annotation]
			if text == "" {
				continue
			}
			address, err := parseIP(f, x.annotation, text)
			if err != nil {
				bad = append(bad, err.Error())
				continue
			}
			*x.address = address
		}
	}
	a.Bad, a.Zone = strings.Join(bad, "; "), o.Zone
	return a
}
