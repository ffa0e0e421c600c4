package k8slab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// leaves takes the last node out of the cluster, as Documentation/kubernetes.md says it: the others know at once that its subnet
// is free.
func leaves(ctx context.Context, s *suite) ([]string, error) {
	n := s.nodes[len(s.nodes)-1]
	file, err := n.Subnet()
	if err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "drain", n.Name(), "--ignore-daemonsets", "--delete-emptydir-data", timeout()); err != nil {
		return nil, err
	}
	if err := n.leave(ctx); err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "delete", "node", n.Name()); err != nil {
		return nil, err
	}
	pods, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	const selvaged = "selvaged"
	answer := "its Node is deleted"
	if s.options.Store == subnet.StoreEtcd {
		answer, err = s.kubectl(ctx, "-n", daemons, "exec", pods[0].Name, "-c", selvaged, "--",
			selvaged, "release", file.Subnets[s.families()[0]].Masked().String())
		if err != nil {
			return nil, err
		}
	}
	err = s.eventually(ctx, "the lease of "+n.Name()+" to be gone", func() error {
		out, err := s.kubectl(ctx, "-n", daemons, "exec", pods[0].Name, "-c", selvaged, "--", selvaged, "status", "-o", "json")
		if err != nil {
			return err
		}
		var now status.Status
		if err := json.Unmarshal([]byte(out), &now); err != nil {
			return err
		}
		if p := now.Peers; p.Programmed != len(s.nodes)-2 || p.Grace+p.Pending+p.Quarantined > 1 {
			return fmt.Errorf("%s has the peers %+v", pods[0], p)
		}
		return nil
	})
	took := time.Since(start)
	if err == nil {
		err = s.eventually(ctx, "the nodes", func() error { return s.allReady(ctx) })
	}
	for _, f := range s.families() {
		if err == nil {
			_, err = callFrom(ctx, s.nodes[len(s.nodes)-2].Do, "tcp", s.pods[0].echo(f))
		}
	}
	return []string{fmt.Sprintf("%s; %.1fs later the others have it for a peer no more", strings.TrimSpace(answer), took.Seconds())}, err
}

// leave ends what a kubelet started, and the kubelet.
func (n *Node) leave(ctx context.Context) error {
	if err := n.stopKubelet(ctx); err != nil {
		return err
	}
	var err error
	if n.proxy != nil {
		err = n.stopProxy(ctx)
	}
	return errors.Join(err, n.Runtime.RemoveAll(ctx))
}
