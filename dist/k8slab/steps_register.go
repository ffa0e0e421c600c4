package k8slab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/node/status"
)

// nodeObject is what is read of a Node.
type nodeObject struct {
	Metadata struct {
		UID         string
		Annotations map[string]string
	}
	Spec   struct{ PodCIDRs []netip.Prefix }
	Status struct{ Conditions []condition }
}

func (c *Cluster) nodeObject(ctx context.Context, name string) (o nodeObject, err error) {
	return o, c.get(ctx, &o, "node", name)
}

// registered waits until a node's daemon has its lease on another Node than before, and nothing to report but, perhaps,
// one problem. It returns the Node.
func (s *suite) registered(
	ctx context.Context, n *Node, before string, problem status.Reason,
) (o nodeObject, err error) {
	err = s.eventually(ctx, "the lease of "+n.Name(), func() (err error) {
		if o, err = s.nodeObject(ctx, n.Name()); err != nil {
			return err
		}
		now, err := n.status(ctx)
		if err != nil {
			return err
		}
		up := slices.ContainsFunc(o.Status.Conditions, func(c condition) bool {
			return c.Type == "NetworkUnavailable" && c.Status == "False"
		})
		written := o.Metadata.Annotations["selvage.io/pod-cidrs"] == prefixes(o.Spec.PodCIDRs) &&
			now.Lease != nil && slices.Equal(now.Lease.Subnets, o.Spec.PodCIDRs)
		others := slices.ContainsFunc(now.Problems, func(p status.Problem) bool { return p.Code != problem })
		if o.Metadata.UID == before || !up || !written || others || has(now, problem) != (problem != "") {
			return fmt.Errorf("the Node is %+v; its daemon is %s with the lease %+v and the problems %v",
				o, now.State, now.Lease, now.Problems)
		}
		return nil
	})
	return o, err
}

// prefixes writes a list with commas.
func prefixes(list []netip.Prefix) string {
	var texts []string
	for _, p := range list {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}

// registeredAgain deletes a Node, which its kubelet registers again, with the podCIDR that it had. A backup is made
// before, for the next steps.
func registeredAgain(ctx context.Context, s *suite) ([]string, error) {
	if err := s.backUp(ctx); err != nil {
		return nil, err
	}
	n := s.nodes[1]
	before, err := s.nodeObject(ctx, n.Name())
	if err != nil {
		return nil, err
	}
	// A controller manager that starts gives the first podCIDR that no Node has.
	if err := errors.Join(s.stop(ctx, controllers, scheduler), n.stopKubelet(ctx)); err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "delete", "node", n.Name()); err != nil {
		return nil, err
	}
	if err := s.waitsForNode(ctx, n); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := errors.Join(n.startKubelet(), s.startControllers()); err != nil {
		return nil, err
	}
	now, err := s.registered(ctx, n, before.Metadata.UID, "")
	if err != nil {
		return nil, err
	}
	if prefixes(now.Spec.PodCIDRs) != prefixes(before.Spec.PodCIDRs) {
		return nil, fmt.Errorf("%s has the podCIDRs %s, want those from before, %s", n.Name(),
			prefixes(now.Spec.PodCIDRs), prefixes(before.Spec.PodCIDRs))
	}
	found := []string{fmt.Sprintf("%s: its lease is on its new Node %.1fs after the kubelet's start, with the same "+
		"podCIDRs, %s", n.Name(), time.Since(start).Seconds(), prefixes(now.Spec.PodCIDRs))}
	if err := s.heard(ctx, n); err != nil {
		return found, err
	}
	seen, err := s.followed(ctx)
	return append(found, seen), err
}

// waitsForNode waits until a node's daemon reports that it has no Node.
func (s *suite) waitsForNode(ctx context.Context, n *Node) error {
	return s.eventually(ctx, "the daemon of "+n.Name(), func() error {
		now, err := n.status(ctx)
		if err == nil && !has(now, status.NotAllocated) {
			err = fmt.Errorf("its Node was deleted, and it is %s with the problems %v", now.State, now.Problems)
		}
		return err
	})
}

// otherPodCIDR deletes a Node and gives its podCIDR to another one, so that its kubelet registers it with another
// podCIDR. The daemon follows; the node's pods have to be replaced, as Documentation/cni.md says. Streams that neither
// begin nor end there lose nothing.
func otherPodCIDR(ctx context.Context, s *suite) (found []string, err error) {
	n, rest := s.leastUsed()
	if _, err := s.lossesOf(ctx, rest); err != nil { // those from before
		return nil, err
	}
	before, err := s.nodeObject(ctx, n.Name())
	if err != nil {
		return nil, err
	}
	if err := n.stopKubelet(ctx); err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "delete", "node", n.Name()); err != nil {
		return nil, err
	}
	if err := s.waitsForNode(ctx, n); err != nil {
		return nil, err
	}
	if err := s.addGhost(ctx, before.Spec.PodCIDRs, nil); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := n.startKubelet(); err != nil {
		return nil, err
	}
	// It is not ready without a word: its pods have addresses that other nodes do not reach any more.
	now, err := s.registered(ctx, n, before.Metadata.UID, status.SubnetChanged)
	if err != nil {
		return nil, err
	}
	for _, p := range now.Spec.PodCIDRs {
		if slices.Contains(before.Spec.PodCIDRs, p) {
			return nil, fmt.Errorf("%s has the podCIDR %s again", n.Name(), p)
		}
	}
	file, err := n.Subnet()
	if err != nil {
		return nil, err
	}
	for i, f := range s.families() {
		if own := file.Subnets[f].Masked(); own != now.Spec.PodCIDRs[i] {
			return nil, fmt.Errorf("the subnet file of %s has %s, want %s", n.Name(), own, now.Spec.PodCIDRs[i])
		}
	}
	found = append(found, fmt.Sprintf("%s: %s in place of %s, %.1fs after the kubelet's start", n.Name(),
		prefixes(now.Spec.PodCIDRs), prefixes(before.Spec.PodCIDRs), time.Since(start).Seconds()))
	if err := s.replacePods(ctx, n); err != nil {
		return found, err
	}
	if _, err := s.kubectl(ctx, "delete", "node", ghost); err != nil {
		return found, err
	}
	if err := errors.Join(s.peers(ctx, len(s.nodes)-1), s.across(ctx), s.leave(ctx)); err != nil {
		return found, err
	}
	found = append(found, "its pods replaced, they and those of all other nodes call each other")
	losses, err := s.lossesOf(ctx, rest)
	if err == nil && (losses.Sent == 0 || losses.Lost > 0) {
		err = fmt.Errorf("between other nodes: %s, want none, and some sent", losses)
	}
	return append(found, fmt.Sprintf("between pods of other nodes: %s", losses)), err
}

// leastUsed returns the node with the fewest streams, and the pods whose streams have nothing to do with it. It is not
// the node that the service leads to.
func (s *suite) leastUsed() (node *Node, rest []*Pod) {
	for _, n := range s.nodes {
		if n == s.alone.Node {
			continue
		}
		others := slices.DeleteFunc(s.streams(), func(p *Pod) bool { return p.Node == n || s.to[p] == n })
		if node == nil || len(others) > len(rest) {
			node, rest = n, others
		}
	}
	return node, rest
}

// lossesOf adds up what streams of these pods lost since the last time.
func (s *suite) lossesOf(ctx context.Context, pods []*Pod) (sum agent.Losses, err error) {
	for _, p := range pods {
		a, err := p.do(ctx, agent.Request{Report: true})
		if err != nil {
			return sum, err
		}
		for _, l := range a.Losses {
			sum = sum.Add(l)
		}
	}
	return sum, nil
}

// replacePods deletes a node's pods and their bridge, and waits for others in their place.
func (s *suite) replacePods(ctx context.Context, n *Node) error {
	if _, err := s.kubectl(ctx, "cordon", n.Name()); err != nil {
		return err
	}
	for _, p := range s.pods {
		if p.Node == n {
			if _, err := s.kubectl(ctx, "delete", "pod", p.Name, "--wait"); err != nil {
				return err
			}
		}
	}
	err := s.eventually(ctx, "nothing to be left on "+n.Name(), func() error {
		left, err := n.Runtime.Left()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("there are %q", left)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := n.Output(ctx, "ip", "link", "delete", "cni0"); err != nil {
		return err
	}
	if _, err := s.kubectl(ctx, "uncordon", n.Name()); err != nil {
		return err
	}
	if err := s.rollout(ctx, "default", "deployment/web"); err != nil {
		return err
	}
	if s.pods, err = s.podsOf(ctx, "default", "app=web"); err != nil {
		return err
	}
	for _, p := range s.pods {
		if err := p.checkAddrs(); err != nil {
			return err
		}
	}
	return nil
}
