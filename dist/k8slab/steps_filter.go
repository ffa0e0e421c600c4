package k8slab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// nftablesWished has the network config say what the daemons have chosen by themselves.
func nftablesWished(ctx context.Context, s *suite) ([]string, error) {
	if err := s.lab.Etcd().PutConfig(ctx, networkConfig("true")); err != nil {
		return nil, err
	}
	return s.modes(ctx, "EnableNFTables is true", status.Ready)
}

// iptablesWished asks for what the image does not have: the daemons have to say so, and what there is has to stay.
func iptablesWished(ctx context.Context, s *suite) ([]string, error) {
	if err := s.lab.Etcd().PutConfig(ctx, networkConfig("false")); err != nil {
		return nil, err
	}
	found, err := s.modes(ctx, "EnableNFTables is false", status.Degraded)
	if err == nil {
		err = s.leave(ctx)
	}
	if err != nil {
		return found, err
	}
	if err := s.lab.Etcd().PutConfig(ctx, networkConfig("")); err != nil {
		return found, err
	}
	after, err := s.modes(ctx, "it works here", status.Ready)
	return append(append(found, "and without it again:"), after...), err
}

// modes waits until all daemons have chosen a mode for a reason, and are in a state.
func (s *suite) modes(ctx context.Context, why string, want status.State) (found []string, err error) {
	for _, n := range s.nodes {
		var now status.Status
		err := s.eventually(ctx, "the daemon of "+n.Name(), func() (err error) {
			if now, err = n.status(ctx); err != nil {
				return err
			}
			if now.State != want || !strings.HasPrefix(now.Filter.Why, why) {
				return fmt.Errorf("it is %s, %s: %v", now.State, filterText(now), now.Problems)
			}
			return nil
		})
		if err != nil {
			return found, err
		}
		text := fmt.Sprintf("%s: %s, %s", n.Name(), now.State, filterText(now))
		for _, p := range now.Problems {
			text += fmt.Sprintf("; %s: %s", p.Topic, p.Text)
		}
		found = append(found, text)
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

func filterText(now status.Status) string { return now.Filter.Mode + ", since " + now.Filter.Why }

// filterMode says by what a node's rules are set.
func (s *suite) filterMode(ctx context.Context, n *Node) (string, error) {
	now, err := n.status(ctx)
	return filterText(now), err
}
