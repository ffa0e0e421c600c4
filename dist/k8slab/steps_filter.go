package k8slab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
)

// nftablesWished has the network config say what the daemons have chosen by themselves.
func nftablesWished(ctx context.Context, s *suite) ([]string, error) {
	if err := s.putConfig(ctx, lab.NFTablesOn); err != nil {
		return nil, err
	}
	return s.modes(ctx, "nftables", status.ModeConfigured, status.Ready)
}

// iptablesWished asks for what the image does not have, as flannel's usual network config does: nftables has to do it all the
// same, the daemons have to say so, and one that starts has to become ready.
func iptablesWished(ctx context.Context, s *suite) ([]string, error) {
	if err := s.putConfig(ctx, lab.NFTablesOff); err != nil {
		return nil, err
	}
	found, err := s.modes(ctx, "nftables", status.NoIPTables, status.Ready)
	if err != nil {
		return found, err
	}
	replaced, err := daemonDeleted(ctx, s)
	if found = append(found, replaced...); err != nil {
		return found, err
	}
	for _, n := range s.nodes {
		now, err := n.status(ctx)
		if err == nil && len(now.Filter.Trouble) != 1 {
			err = fmt.Errorf("%s: it says of the wish that it cannot meet %q, want one sentence", n.Name(), now.Filter.Trouble)
		}
		if err != nil {
			return found, err
		}
	}
	if err := errors.Join(s.leave(ctx), s.putConfig(ctx, lab.NodesChoose)); err != nil {
		return found, err
	}
	after, err := s.modes(ctx, "nftables", status.ModeDefault, status.Ready)
	return append(append(found, "and without it again:"), after...), err
}

// modes waits until all daemons have chosen a mode for a reason, and are in a state.
func (s *suite) modes(ctx context.Context, mode string, why status.Reason, want status.State,
) (found []string, err error) {
	for _, n := range s.nodes {
		var now status.Status
		err := s.eventually(ctx, "the daemon of "+n.Name(), func() (err error) {
			if now, err = n.status(ctx); err != nil {
				return err
			}
			if now.State != want || now.Filter.Mode != mode || now.Filter.Code != why {
				return fmt.Errorf("it is %s, %s: %v; want %s, %s, since %s", now.State, filterText(now), now.Problems, want, mode, why)
			}
			return nil
		})
		if err != nil {
			return found, err
		}
		found = append(found, fmt.Sprintf("%s: %s, %s", n.Name(), now.State, filterText(now)))
	}
	return found, nil
}

// status asks the daemon of the node, as an administrator does there.
func (n *Node) status(ctx context.Context) (now status.Status, err error) {
	out, err := n.Output(ctx, filepath.Join(n.cluster.options.Bin, "selvaged"), "status", "-o", "json")
	if len(out) == 0 {
		return now, errors.Join(fmt.Errorf("%s: selvaged status printed nothing", n.Name()), err)
	}
	return now, json.Unmarshal(out, &now) // the exit code says what it is too
}

func filterText(now status.Status) string {
	return fmt.Sprintf("%s, since %s", now.Filter.Mode, now.Filter.Why)
}

// filterMode says by what a node's rules are set.
func (s *suite) filterMode(ctx context.Context, n *Node) (string, error) {
	now, err := n.status(ctx)
	return filterText(now), err
}
