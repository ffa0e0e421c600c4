package chaos

import (
	"context"
	"slices"

	"github.com/selvage-net/selvage/dist/lab"
)

// Lab is what a suite breaks, for who does other things to it as well, between faults.
func (s *Suite) Lab() *lab.Lab { return s.lab }

// Whole reads the leases, and waits until all is as it is to be: what every node's kernel holds is what they ask for, its rules are
// what they were, nothing of others' has changed, and all pods of the suite's reach each other. The problems are what is not so
// in the end. It is the place to go on from after leases have come and gone.
func (s *Suite) Whole(ctx context.Context) (problems []string, err error) {
	if s.leases, err = s.lab.Store().Leases(ctx); err != nil {
		return nil, err
	}
	return s.whole(ctx)
}

// Rules returns what a node's packet filter holds, of selvage's and of others', a line a thing; who is let in as a peer is a
// line each.
func (s *Suite) Rules(ctx context.Context, n *lab.Node) ([]string, error) {
	h := s.hosts[slices.IndexFunc(s.hosts, func(h *host) bool { return h.Node == n })]
	our, others, err := h.allRules(ctx)
	if err != nil {
		return nil, err
	}
	lines := our.lines
	for _, keys := range our.peers {
		lines = append(lines, keys...)
	}
	return append(lines, others...), nil
}
