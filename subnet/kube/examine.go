package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// rights are what each node does.
func rights() []apiserver.Right {
	return []apiserver.Right{
		{Verb: "get", Resource: apiserver.Nodes}, {Verb: "list", Resource: apiserver.Nodes},
		{Verb: "watch", Resource: apiserver.Nodes}, {Verb: "patch", Resource: apiserver.Nodes, Subresource: "status"},
	}
}

// reviewRight is what a node does that is asked with tokens, see [Store.Reviewer].
func reviewRight() apiserver.Right {
	return apiserver.Right{Verb: "create", Resource: apiserver.TokenReviews}
}

// Examine implements [subnet.Examiner]. There is one endpoint: behind its URL can be several API servers.
func (s *Store) Examine(ctx context.Context) subnet.Examination {
	e := s.client.Examine(ctx)
	x := subnet.Examination{CertificateEnds: s.client.CertificateEnds()}
	if e.Problem.Err == nil {
		var readable bool
		if x.Rights, readable = s.examineRights(ctx); readable {
			e.Alarms = s.examineAllocation(ctx)
		}
	} else {
		x.Rights = e.Problem // they could not be found out
	}
	x.Endpoints = []subnet.EndpointReport{e}
	return x
}

// examineRights says why the node cannot do what it has to. readable: it has all rights on Nodes.
func (s *Store) examineRights(ctx context.Context) (p subnet.Problem, readable bool) {
	needed := rights()
	if s.reviews.Load() {
		needed = append(needed, reviewRight())
	}
	var missing, why []string
	readable = true
	for _, r := range needed {
		allowed, explanation, err := s.client.Allowed(ctx, r)
		if err != nil {
			return apiserver.ProblemOf(fmt.Errorf("ask for the rights of this node: %w", err)), false
		}
		if allowed {
			continue
		}
		readable = readable && r.Resource != apiserver.Nodes
		what := r.Resource.Name
		if r.Subresource != "" {
			what += "/" + r.Subresource
		}
		missing = append(missing, r.Verb+" "+what)
		if explanation != "" {
			why = append(why, explanation)
		}
	}
	if len(missing) == 0 {
		return subnet.Problem{}, readable
	}
	// A request that is denied says whose credentials these are.
	_, err := s.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{Name: noNode},
		func(apiserver.Page) error { return nil })
	if p := apiserver.ProblemOf(err); p.Reason.AboutUser() {
		p.Err = fmt.Errorf("missing: %s: %w", strings.Join(missing, ", "), err)
		return p, readable
	}
	text := fmt.Sprintf("missing: %s: give this node's user the ClusterRole of selvage's manifest",
		strings.Join(missing, ", "))
	if len(why) > 0 {
		text += " (" + subnet.Quote(why[0]) + ")"
	}
	return subnet.Problem{Reason: subnet.ReasonForbidden, Err: errors.New(text)}, readable
}

// examineAllocation says why this node has no subnet, or whose fault it is.
func (s *Store) examineAllocation(ctx context.Context) []subnet.Problem {
	one := func(reason subnet.Reason, err error) []subnet.Problem {
		return []subnet.Problem{{Reason: reason, Err: err}}
	}
	name, err := s.nodeName(ctx)
	if err != nil {
		return []subnet.Problem{apiserver.ProblemOf(err)}
	}
	node, err := s.readNode(ctx, name)
	switch {
	case isNotFound(err):
		return one(subnet.ReasonNoNode, fmt.Errorf("there is no Node %s: check that its kubelet runs and has "+
			"registered it, and that NODE_NAME is its name", name))
	case err != nil:
		return []subnet.Problem{apiserver.ProblemOf(fmt.Errorf("read Node %s: %w", name, err))}
	}
	cidrs := specOf(&node)
	switch {
	case cidrs.err != nil:
		return one(subnet.ReasonNoSubnet, fmt.Errorf("node %s: %w", name, cidrs.err))
	case !cidrs.none():
		return nil
	}
	others, err := s.anyAllocated(ctx)
	switch {
	case err != nil:
		return []subnet.Problem{apiserver.ProblemOf(err)}
	case others:
		return one(subnet.ReasonNoSubnet, fmt.Errorf("node %s has no podCIDR, and others have: look at the controller "+
			"manager's log; the range in its --cluster-cidr may be used up", name))
	}
	return one(subnet.ReasonNoSubnets, errors.New("no Node has a podCIDR: the controller manager has to run with "+
		"--allocate-node-cidrs and --cluster-cidr (kubeadm: networking.podSubnet)"))
}

// errEnough ends a list.
var errEnough = errors.New("enough")

// anyAllocated reports whether one of the cluster's Nodes, of those on the first page, has a podCIDR.
func (s *Store) anyAllocated(ctx context.Context) (found bool, err error) {
	_, err = s.client.Nodes(ctx, apiserver.ListOptions{AnyVersion: true}, func(p apiserver.PageOf[apiserver.Node]) error {
		for _, n := range p.Objects {
			found = found || len(n.PodCIDRs) > 0
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("look for Nodes with a podCIDR: %w", err)
	}
	return found, err
}
