package command

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// found is what one network of selvage left on this node.
type found struct {
	prefix    string // of its keys in the store; empty: unknown
	tags      []string
	scopes    []network.Scope // none if prefix is unknown
	networks  []netip.Prefix  // nil: unknown
	stateDirs []string
}

func (f *found) add(s network.Scope) {
	if !slices.Contains(f.scopes, s) {
		f.scopes, f.tags = append(f.scopes, s), append(f.tags, s.Tag())
	}
}

func (f *found) String() string {
	if f.prefix == "" {
		return fmt.Sprintf("table or chains with the tag %s, whose network is not known", f.tags[0])
	}
	var vnis []string
	for _, s := range f.scopes {
		vnis = append(vnis, fmt.Sprint(s.VNI))
	}
	flag := "--etcd-prefix"
	if !strings.HasPrefix(f.prefix, "/") && strings.Contains(f.prefix, ".") { // see network.KubernetesPrefix
		flag = "--kube-annotation-prefix"
	}
	return fmt.Sprintf("%s=%s (VNI %s)", flag, f.prefix, strings.Join(vnis, ", "))
}

// networks lists the networks that have objects on this node: state directories, devices, or packet filter rules.
func (o cleanup) networks() (all []*found, err error) {
	of := func(prefix string) *found {
		for _, f := range all {
			if f.prefix == prefix {
				return f
			}
		}
		f := &found{prefix: prefix}
		all = append(all, f)
		return f
	}
	for _, s := range node.BoundStates(o.stateDir) {
		f := of(s.Prefix)
		f.stateDirs = append(f.stateDirs, s.Dir)
		f.networks = append(f.networks, s.Networks...)
		for _, scope := range s.Scopes {
			f.add(scope)
		}
	}
	scopes, err := deviceScopes()
	if err != nil {
		return nil, err
	}
	for _, s := range scopes {
		of(s.Prefix).add(s)
	}
	k := filter.NewKeeper()
	defer k.Close()
	tags, err := k.Tags(filter.Table, vtepfilter.Table)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		if slices.ContainsFunc(all, func(f *found) bool { return slices.Contains(f.tags, tag) }) {
			continue
		}
		if s, ok := scopeWith(tag, o.prefix); ok {
			of(s.Prefix).add(s)
		} else {
			all = append(all, &found{tags: []string{tag}})
		}
	}
	return all, nil
}

func deviceScopes() ([]network.Scope, error) {
	k, err := kernel.Open(network.NewTables())
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return k.Scopes()
}

// triedVNIs is how many VNIs are tried to find that of a tag. Larger ones are known only from the device or the state
// directory.
const triedVNIs = 1 << 16

// scopeWith finds the scope that has a tag, among those of the default network and of the one under prefix.
func scopeWith(tag, prefix string) (s network.Scope, ok bool) {
	for vni := range uint32(triedVNIs) {
		for _, p := range []string{"", prefix} {
			if s = network.NewScope(p, vni); s.Tag() == tag {
				return s, true
			}
		}
	}
	return s, false
}

// choose returns the networks to remove, merged into one, and the networks that stay. If the user names none, there
// must be at most one.
func (o cleanup) choose(all []*found) (chosen *found, others []*found, err error) {
	chosen = &found{}
	wanted := network.NewScope(o.prefix, 0).Prefix
	for _, f := range all {
		if o.prefix == "" || f.prefix == wanted {
			chosen.prefix = f.prefix
			chosen.tags = append(chosen.tags, f.tags...)
			chosen.scopes = append(chosen.scopes, f.scopes...)
			chosen.networks = append(chosen.networks, f.networks...)
			chosen.stateDirs = append(chosen.stateDirs, f.stateDirs...)
		} else {
			others = append(others, f)
		}
	}
	if o.prefix == "" && len(all) > 1 && !o.all {
		return nil, nil, fmt.Errorf("this node has objects of several networks; name one with --etcd-prefix, "+
			"or all with --all:\n%s", lines(all))
	}
	if o.prefix != "" && len(chosen.tags) == 0 && len(others) > 0 {
		return nil, nil, fmt.Errorf("this node has nothing of the network --etcd-prefix=%s; it has:\n%s",
			o.prefix, lines(others))
	}
	if len(chosen.tags) == 0 {
		chosen.add(network.NewScope(o.prefix, 0)) // there may be routes
	}
	return chosen, others, nil
}

func lines(all []*found) string {
	var texts []string
	for _, f := range all {
		texts = append(texts, "  "+f.String())
	}
	return strings.Join(texts, "\n")
}

// ownership returns what to remove in the kernel. Routes outside the network's devices are known by the overlay's
// addresses; if no other network is on the node, all that carry selvage's protocol number are its.
func (f *found) ownership(alone bool) (o network.Ownership) {
	if len(f.scopes) > 0 {
		o.Scope, o.Former = f.scopes[0], f.scopes[1:]
	}
	if !alone {
		o.Networks = append([]netip.Prefix{}, f.networks...)
	}
	return o
}

// running returns an error if a daemon of a network to be removed is running.
func (o cleanup) running(ctx context.Context, chosen *found) error {
	running := errors.New("selvaged is running on this node and would create everything again; " +
		"stop it first: systemctl disable --now selvaged")
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	s, err := status.NewClient(o.socket).Status(asking)
	known := err == nil && s.Prefix != ""
	if !errors.Is(err, status.ErrNotRunning) && (!known || o.all ||
		slices.ContainsFunc(chosen.scopes, func(x network.Scope) bool { return x.Prefix == s.Prefix })) {
		return running
	}
	neighbours, err := node.Neighbours()
	if err != nil {
		return nil // without /proc; the socket has answered
	}
	for _, n := range neighbours {
		if slices.Contains(chosen.tags, n.Tag) {
			return running
		}
	}
	return nil
}
