package k8slab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

// streamEvery is how often each of the streams sends a datagram.
const streamEvery = 2 * time.Millisecond

// streams are the pods that send: the first of each node's.
func (s *suite) streams() (list []*Pod) {
	for i := 0; i < len(s.pods); i += perNode {
		list = append(list, s.pods[i])
	}
	return list
}

// stream has a pod of each node send to one of the next, in each family, for as long as the suite goes on. One of them sends by
// the service that only a pod of another node is behind.
func stream(ctx context.Context, s *suite) ([]string, error) {
	var found []string
	byService := slices.IndexFunc(s.streams(), func(p *Pod) bool { return p.Node != s.alone.Node })
	for i, p := range s.streams() {
		to := s.pods[(i*perNode+perNode+1)%len(s.pods)] // the second of the next node
		for _, f := range s.families() {
			what, text := to.echo(f), to.String()
			s.to[p] = to.Node
			if i == byService {
				var err error
				if what, err = s.clusterIP(ctx, "alone", f); err != nil {
					return nil, err
				}
				text, s.to[p] = "a service's pod on "+s.alone.Node.Name(), s.alone.Node
			}
			// kube-proxy may not have its rules yet: what is lost for that says nothing of the network.
			err := s.eventually(ctx, fmt.Sprintf("an answer of %s to %s", text, p), func() error {
				_, err := p.call(ctx, "udp", what)
				return err
			})
			if err != nil {
				return nil, err
			}
			if _, err := p.do(ctx, agent.Request{Stream: &agent.Stream{To: what, Every: streamEvery}}); err != nil {
				return nil, err
			}
			found = append(found, fmt.Sprintf("%s -> %s, %s, every %s", p, what, text, streamEvery))
			s.flows[p] = append(s.flows[p], &flow{text: fmt.Sprintf("%s -> %s, %s", p, s.to[p].Name(), f)})
		}
	}
	losses, of, err := s.losses(ctx)
	return slices.Concat(found, []string{losses.String()}, of), err
}

// losses adds up what was lost since the last time, and says of which streams.
func (s *suite) losses(ctx context.Context) (sum agent.Losses, of []string, err error) {
	for _, p := range s.streams() {
		a, err := p.do(ctx, agent.Request{Report: true})
		if err == nil && len(a.Losses) != len(s.families()) {
			err = fmt.Errorf("%s reports on %d streams, want %d", p, len(a.Losses), len(s.families()))
		}
		if err != nil {
			return sum, of, err
		}
		for i, l := range a.Losses {
			if i < len(s.flows[p]) {
				s.flows[p][i].total = s.flows[p][i].total.Add(l)
			}
			if sum = sum.Add(l); l.Lost > 0 {
				of = append(of, fmt.Sprintf("from %s, %s: %s", p, s.families()[i], l))
			}
		}
	}
	return sum, of, nil
}

// watched does something to the cluster and wants none of it to be noticed by pods: not a datagram lost, no pod restarted, no
// other address, and the path outside as before. If the machine dropped at least as many packets as were lost, because
// it was too busy to take them or for the agents to read them, the loss says nothing: then it is done again, a few
// times at most.
func watched(run func(context.Context, *suite) ([]string, error)) func(context.Context, *suite) ([]string, error) {
	return watchedUpTo(4, run)
}

// watchedOnce is for what cannot be done again.
func watchedOnce(run func(context.Context, *suite) ([]string, error)) func(context.Context, *suite) ([]string, error) {
	return watchedUpTo(1, run)
}

func watchedUpTo(
	tries int, run func(context.Context, *suite) ([]string, error),
) func(context.Context, *suite) ([]string, error) {
	return func(ctx context.Context, s *suite) (found []string, err error) {
		for try := 1; ; try++ {
			lines, losses, busy, err := s.watch(ctx, run)
			found = append(found, lines...)
			if err != nil {
				return found, err
			}
			if losses.Sent > 0 && losses.Lost == 0 {
				return found, errors.Join(s.samePods(ctx), s.stillReady(ctx), s.leave(ctx))
			}
			dropped := fmt.Sprintf("meanwhile, the machine was too busy and dropped %d packets, of any program, "+
				"and the pods' sockets %d", busy.machine, busy.sockets)
			if !busy.explain(losses) || try == tries {
				return found, fmt.Errorf("%s, want none, and some sent; %s", losses, dropped)
			}
			found = append(found, dropped+": once more")
		}
	}
}

// drops counts packets that were dropped since something was too slow to take them.
type drops struct {
	machine uint64 // of whomever's, see machineDrops
	sockets uint64 // by the agents' sockets
}

// explain reports whether these are all that the streams lost. Each lost datagram is one packet that was dropped.
func (d drops) explain(l agent.Losses) bool {
	return l.Sent > 0 && uint64(l.Lost) <= d.machine+d.sockets
}

func (s *suite) drops(ctx context.Context) (d drops, err error) {
	if d.machine, err = machineDrops(); err != nil {
		return d, err
	}
	for _, p := range append([]*Pod{s.alone}, s.pods...) {
		a, err := p.do(ctx, agent.Request{Overflows: true})
		if err != nil {
			return d, err
		}
		d.sockets += a.Overflows
	}
	return d, nil
}

// watch does something once, and counts what the streams lose, and what is dropped meanwhile.
func (s *suite) watch(ctx context.Context, run func(context.Context, *suite) ([]string, error)) (found []string, losses agent.Losses, busy drops, err error) {
	if _, _, err := s.losses(ctx); err != nil { // those from before
		return nil, losses, busy, err
	}
	before, err := s.drops(ctx)
	if err != nil {
		return nil, losses, busy, err
	}
	if found, err = run(ctx, s); err != nil {
		return found, losses, busy, err
	}
	losses, of, err := s.losses(ctx)
	if err != nil {
		return found, losses, busy, err
	}
	after, err := s.drops(ctx)
	busy = drops{machine: after.machine - before.machine, sockets: after.sockets - before.sockets}
	return slices.Concat(found, []string{losses.String()}, of), losses, busy, err
}

// samePods wants the pods to be those that they were. A kubelet that starts takes them for not ready until it has probed them.
func (s *suite) samePods(ctx context.Context) error {
	return s.eventually(ctx, "the pods", func() error {
		now, err := s.podsOf(ctx, "default", "app=web")
		if err != nil {
			return err
		}
		if len(now) < len(s.pods) {
			return fmt.Errorf("ready are %v, want %v", now, s.pods)
		}
		if !slices.EqualFunc(now, s.pods, func(a, b *Pod) bool { return a.identity() == b.identity() }) {
			return fmt.Errorf("%w: the pods are %q, were %q", errStop, identities(now), identities(s.pods))
		}
		return nil
	})
}

func identities(pods []*Pod) (list []string) {
	for _, p := range pods {
		list = append(list, p.identity())
	}
	return list
}

// stillReady wants no node to have become unready. A node whose kubelet has not reported for a while is waited for:
// after an outage of the API server, a kubelet may take a minute to notice that its connection is gone.
func (s *suite) stillReady(ctx context.Context) error {
	return s.eventually(ctx, "the kubelets' reports", func() error {
		var list nodeList
		err := s.get(ctx, &list, "nodes")
		for _, n := range list.Items {
			switch r := ready(n.Status.Conditions); r.Status {
			case "True":
			case "Unknown":
				err = errors.Join(err, fmt.Errorf("%s: %+v", n.Metadata.Name, r))
			default:
				return fmt.Errorf("%w: %s is not ready: %+v", errStop, n.Metadata.Name, r)
			}
		}
		return err
	})
}

// allReady wants every node to be ready.
func (s *suite) allReady(ctx context.Context) error {
	var list nodeList
	if err := s.get(ctx, &list, "nodes"); err != nil {
		return err
	}
	for _, n := range list.Items {
		if r := ready(n.Status.Conditions); r.Status != "True" {
			return fmt.Errorf("%s is not ready: %+v", n.Metadata.Name, r)
		}
	}
	return nil
}

func rollingUpdate(ctx context.Context, s *suite) ([]string, error) {
	before, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "-n", daemons, "rollout", "restart", daemonSetOf); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, daemons, daemonSetOf); err != nil {
		return nil, err
	}
	return s.daemonsReplaced(ctx, before, len(s.nodes))
}

func daemonDeleted(ctx context.Context, s *suite) ([]string, error) {
	before, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "-n", daemons, "delete", "pod", before[0].Name); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, daemons, daemonSetOf); err != nil {
		return nil, err
	}
	return s.daemonsReplaced(ctx, before, 1)
}

// daemonsReplaced wants that many of the daemons' pods to be others than before.
func (s *suite) daemonsReplaced(ctx context.Context, before []*Pod, want int) ([]string, error) {
	now, err := s.podsOf(ctx, daemons, daemonLabel)
	if err != nil {
		return nil, err
	}
	replaced := len(slices.DeleteFunc(slices.Clone(now), func(p *Pod) bool {
		return slices.ContainsFunc(before, func(b *Pod) bool { return b.UID == p.UID })
	}))
	if replaced != want || len(now) != len(s.nodes) {
		err = fmt.Errorf("%d of %d pods of the daemon were replaced, want %d of %d", replaced, len(now), want, len(s.nodes))
	}
	return []string{fmt.Sprintf("%d of %d daemons replaced", replaced, len(now))}, err
}

func kubeletRestarted(ctx context.Context, s *suite) ([]string, error) {
	for _, n := range s.nodes {
		if err := n.restartKubelet(ctx); err != nil {
			return nil, err
		}
		if err := s.heard(ctx, n); err != nil {
			return nil, err
		}
	}
	return []string{"on each node in turn"}, nil
}

// containerdKilled kills it as a crash does, and looks whether pods can be made and removed afterwards.
func containerdKilled(ctx context.Context, s *suite) ([]string, error) {
	for _, n := range s.nodes {
		n.Runtime.Kill()
		if err := n.Runtime.Start(ctx); err != nil {
			return nil, err
		}
		if err := s.heard(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := s.newPods(ctx); err != nil {
		return nil, err
	}
	return []string{"on each node in turn; then a pod more on each, which came, reached the others, and went"}, s.later(ctx, 0)
}

// newPods makes a pod more on each node, and has it and the others call each other.
func (s *suite) newPods(ctx context.Context) error {
	if err := s.later(ctx, len(s.nodes)); err != nil {
		return err
	}
	pods, err := s.podsOf(ctx, "default", "app=later")
	if err != nil {
		return err
	}
	if len(pods) != len(s.nodes) {
		return fmt.Errorf("%d pods more run, want one on each of %d nodes", len(pods), len(s.nodes))
	}
	for _, p := range pods {
		for _, other := range s.streams() {
			for _, f := range s.families() {
				if _, err := p.call(ctx, "udp", other.echo(f)); err != nil {
					return err
				}
				if _, err := other.call(ctx, "udp", p.echo(f)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// later has that many pods of the Deployment that comes and goes.
func (s *suite) later(ctx context.Context, replicas int) error {
	if _, err := s.kubectl(ctx, "scale", "deployment/later", fmt.Sprintf("--replicas=%d", replicas)); err != nil {
		return err
	}
	return s.rollout(ctx, "default", "deployment/later")
}

// heard waits until the kubelet of a node has renewed its lease, and the node is ready.
func (s *suite) heard(ctx context.Context, n *Node) error {
	renewed := func() (t time.Time, err error) {
		var lease struct{ Spec struct{ RenewTime time.Time } }
		err = s.get(ctx, &lease, "-n", "kube-node-lease", "lease", n.Name())
		return lease.Spec.RenewTime, err
	}
	before, _ := renewed() // there is none of a Node that was just registered
	err := s.eventually(ctx, "the kubelet of "+n.Name(), func() error {
		now, err := renewed()
		if err == nil && !now.After(before) {
			err = fmt.Errorf("its lease was last renewed at %s", now)
		}
		return errors.Join(err, n.ended())
	})
	if err != nil {
		return err
	}
	return s.eventually(ctx, "the nodes", func() error { return s.allReady(ctx) })
}

// deleted removes the workload, and wants nothing of it to be left on any node.
func deleted(ctx context.Context, s *suite) ([]string, error) {
	if _, err := s.kubectl(ctx, "delete", "deployment", "--all", "--wait", "--cascade=foreground"); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		err := s.eventually(ctx, "nothing to be left on "+n.Name(), func() error {
			left, err := n.Runtime.Left()
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("there are %q", left)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return []string{"no address, attachment, port or network namespace is left on any node"}, nil
}
