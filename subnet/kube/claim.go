package kube

import (
	"context"
	"errors"
	"fmt"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// conflicts is how often a write is tried again at once because the Node has changed since it was read. A kubelet
// writes every ten seconds at most.
const conflicts = 5

// Claim implements [subnet.Store]. Its two requests read this node's Node and write what differs.
func (s *Store) Claim(ctx context.Context, _ *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	name, err := s.nodeName(ctx)
	if err != nil {
		return subnet.Record{}, err
	}
	s.waiting.Store(true) // before the Node is read: what changes then is not missed
	for try := 1; ; try++ {
		r, err := s.claim(ctx, name, want)
		switch {
		case err == nil:
			s.waiting.Store(false)
			s.claimed()
			s.await(r.Version)
			return r, nil
		case !errors.Is(err, apiserver.ErrConflict) || try == conflicts:
			return r, fmt.Errorf("claim for Node %s: %w", name, err)
		}
	}
}

// claim is one attempt.
func (s *Store) claim(ctx context.Context, name string, want subnet.Lease) (subnet.Record, error) {
	node, err := s.readNode(ctx, name)
	if isNotFound(err) {
		return subnet.Record{}, fmt.Errorf("%w: there is no such Node in the API; waiting for its kubelet to "+
			"register it", subnet.ErrNotAllocated)
	}
	if err != nil {
		return subnet.Record{}, err
	}
	l, err := given(&node, want)
	if err != nil {
		return subnet.Record{}, err
	}
	return s.write(ctx, &node, l)
}

// given returns what a node claims with the subnets that its Node has.
func given(node *apiserver.Node, want subnet.Lease) (subnet.Lease, error) {
	cidrs := specOf(node)
	if cidrs.err != nil {
		return want, cidrs.err
	}
	for _, f := range subnet.Families() {
		e := &want.Endpoints[f]
		if !e.PublicIP.IsValid() {
			*e = subnet.Endpoint{}
			continue
		}
		if e.Subnet = cidrs.subnets[f]; !e.Subnet.IsValid() {
			return want, fmt.Errorf("%w: the Node has no %s podCIDR; waiting for one. The controller manager gives it "+
				"with --allocate-node-cidrs and an %s range in --cluster-cidr, or a cloud's controller does",
				subnet.ErrNotAllocated, f, f)
		}
	}
	if !want.Has(subnet.IPv4) && !want.Has(subnet.IPv6) {
		return want, errors.New("the lease has no public IP")
	}
	return want, nil
}

// write makes l the lease of a Node, if that is still as it was read: else the error is [apiserver.ErrConflict].
func (s *Store) write(ctx context.Context, node *apiserver.Node, l subnet.Lease) (subnet.Record, error) {
	wanted, err := s.names.claimed(l, node)
	if err != nil {
		return subnet.Record{}, err
	}
	now := *node
	if c := wanted.differing(&node.Object); len(c) > 0 {
		patch, err := c.patch(&node.Object)
		if err != nil {
			return subnet.Record{}, err
		}
		if now, err = s.client.PatchNodeStatus(ctx, node.Name, patch); err != nil {
			return subnet.Record{}, err
		}
	}
	r := s.names.record(&now.Object, specOf(&now))
	switch {
	case r.Bad != nil:
		return r, r.Bad
	case !s.names.isLease(&now.Object) || r.Lease != l:
		return r, fmt.Errorf("the API server did not take the annotations as they were written: an admission policy " +
			"or webhook of the cluster changes them")
	}
	return r, nil
}

// readNode reads a Node. That it is malformed is no error: the Node says so itself.
func (s *Store) readNode(ctx context.Context, name string) (apiserver.Node, error) {
	node, err := s.client.Node(ctx, name)
	if node.Bad != nil {
		err = nil
	}
	return node, err
}

func isNotFound(err error) bool { return errors.Is(err, apiserver.ErrNotFound) }
