package node

import (
	"errors"
	"strings"

	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// advice returns what an operator says of this node in the store.
func (n *node) advice() subnet.NodeAdvice {
	if s, ok := n.Store.(subnet.NodeAdviser); ok {
		return s.Advice()
	}
	return subnet.NodeAdvice{}
}

// adviceChanged reports whether the uplink was chosen by other advice than there is now.
func (n *node) adviceChanged() bool { return n.advice() != n.advised }

// takeAdvice applies the advice to the options, whose networks are set. A value that cannot be used is ignored and
// named in the status: an annotation must not stop a node.
func (n *node) takeAdvice(o *uplink.Options) {
	a := n.advice()
	n.advised = a
	var bad []string
	if a.Bad != "" {
		bad = append(bad, a.Bad)
	}
	for _, f := range subnet.Families() {
		if p := a.PublicIP[f]; p.IsValid() {
			if err := o.CheckPublicIP(f, p, a.PublicIPSource[f]); err != nil {
				bad = append(bad, err.Error())
			} else {
				o.PublicIP[f], o.PublicIPName[f] = p, a.PublicIPSource[f]
			}
		}
		if p := a.Announced[f]; p.IsValid() {
			if err := o.CheckPublicIP(f, p, a.AnnouncedSource[f]); err != nil {
				bad = append(bad, err.Error())
			} else {
				o.Announced[f] = p
			}
		}
	}
	if len(bad) > 0 {
		n.journal.problem(topicAdvice, errors.New(strings.Join(bad, "; ")))
		return
	}
	n.journal.resolved(topicAdvice)
}
