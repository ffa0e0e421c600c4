package k8slab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// dropForward has a node drop what it forwards, as Docker does at its start: by the policy, with a chain for others before it.
func (n *Node) dropForward(ctx context.Context) error {
	return n.iptables(ctx, "$ -N DOCKER-USER; $ -A DOCKER-USER -j RETURN; $ -I FORWARD -j DOCKER-USER; $ -P FORWARD DROP")
}

// acceptForward takes that back.
func (n *Node) acceptForward(ctx context.Context) error {
	return n.iptables(ctx, "$ -P FORWARD ACCEPT; $ -D FORWARD -j DOCKER-USER; $ -F DOCKER-USER; $ -X DOCKER-USER")
}

// iptables runs a script on a node for each family, with the machine's iptables of that family in place of $.
func (n *Node) iptables(ctx context.Context, script string) error {
	for _, f := range n.cluster.families() {
		program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
		if _, err := n.Output(ctx, "sh", "-ec", strings.ReplaceAll(script, "$", program+" --wait")); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
	}
	return nil
}

// dropped has somebody else drop in FORWARD on every node, and the daemons without iptables. They cannot undo it, so they have
// to say so; and what they say is done, to see that it helps.
func dropped(ctx context.Context, s *suite) (found []string, err error) {
	for _, n := range s.nodes {
		if err := n.dropForward(ctx); err != nil {
			return nil, err
		}
	}
	advice := map[*Node][]string{}
	for _, n := range s.nodes {
		if advice[n], err = s.advice(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := s.cut(ctx); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		for _, commands := range advice[n] {
			if _, err := n.Output(ctx, "sh", "-ec", commands); err != nil {
				return nil, fmt.Errorf("%s: as advised: %w", n.Name(), err)
			}
		}
	}
	if _, err := s.modes(ctx, "nftables", status.ModeDefault, status.Ready); err != nil {
		return nil, fmt.Errorf("with what was advised: %w", err)
	}
	if err := s.across(ctx); err != nil {
		return nil, fmt.Errorf("with what was advised: %w", err)
	}
	for _, n := range s.nodes {
		for _, commands := range advice[n] {
			if _, err := n.Output(ctx, "sh", "-ec", strings.ReplaceAll(commands, " -I ", " -D ")); err != nil {
				return nil, fmt.Errorf("%s: to take back what was advised: %w", n.Name(), err)
			}
		}
		if err := n.acceptForward(ctx); err != nil {
			return nil, err
		}
	}
	if _, err := s.modes(ctx, "nftables", status.ModeDefault, status.Ready); err != nil {
		return nil, err
	}
	return append([]string{"no pod reached one of another node, each daemon was degraded, and this helped:"}, advice[s.nodes[0]]...), s.across(ctx)
}

// advice waits until the daemon of a node is degraded by what somebody drops, in each family, and returns the commands that it
// gives against that.
func (s *suite) advice(ctx context.Context, n *Node) (commands []string, err error) {
	err = s.eventually(ctx, "the daemon of "+n.Name(), func() error {
		commands = nil
		now, err := n.status(ctx)
		if err != nil {
			return err
		}
		for _, d := range now.Filter.Drops {
			commands = append(commands, strings.Join(d.Commands, "; "))
		}
		if now.State != status.Degraded || len(commands) != len(s.families()) {
			return fmt.Errorf("it is %s, %s: %q, want it to be degraded, and advice for each of %v", now.State, filterText(now), now.Filter.Foreign, s.families())
		}
		return nil
	})
	return commands, err
}

// across calls, from a pod of each node, one of each other.
func (s *suite) across(ctx context.Context) error {
	return s.acrossEach(func(from, to *Pod, f subnet.Family) error {
		_, err := from.call(ctx, "tcp", to.echo(f))
		return err
	})
}

// cut wants no such call to come through.
func (s *suite) cut(ctx context.Context) error {
	from, to := s.pods[0], s.pods[perNode]
	for _, f := range s.families() {
		if echo, err := from.call(ctx, "udp", to.echo(f)); err == nil {
			return fmt.Errorf("%s -> %s was answered, by %s, though FORWARD drops it", from, to, echo)
		}
	}
	return nil
}

func (s *suite) acrossEach(call func(from, to *Pod, f subnet.Family) error) error {
	for _, f := range s.families() {
		for _, from := range s.streams() {
			for _, to := range s.streams() {
				if from == to {
					continue
				}
				if err := call(from, to, f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// iptablesInImage gives the DaemonSet an image with iptables, and has the network config wish for that: then somebody may
// drop in FORWARD, and nothing is lost. Without the wish, the daemons take iptables as long as somebody does.
func iptablesInImage(ctx context.Context, s *suite) (found []string, err error) {
	archive, err := s.packIPTables(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if err := n.Runtime.Import(ctx, archive); err != nil {
			return nil, err
		}
	}
	if err := s.putConfig(ctx, lab.NFTablesOff); err != nil {
		return nil, err
	}
	if _, err := s.kubectl(ctx, "-n", daemons, "set", "image", daemonSetOf, "*="+withIPTables); err != nil {
		return nil, err
	}
	if err := s.rollout(ctx, daemons, daemonSetOf); err != nil {
		return nil, err
	}
	found, err = s.modes(ctx, "iptables", status.ModeConfigured, status.Ready)
	if err != nil {
		return found, err
	}
	for _, n := range s.nodes {
		if err := errors.Join(n.keptByIPTables(ctx), n.dropForward(ctx)); err != nil {
			return found, err
		}
	}
	if err := errors.Join(s.across(ctx), s.leave(ctx), s.putConfig(ctx, lab.NodesChoose)); err != nil {
		return found, err
	}
	after, err := s.modes(ctx, "iptables", status.ModeForeignDrop, status.Ready)
	if found = append(append(found, "FORWARD drops on all nodes from now on; and without the wish:"), after...); err != nil {
		return found, err
	}
	if err := errors.Join(s.across(ctx), s.leave(ctx)); err != nil {
		return found, err
	}
	for _, n := range s.nodes {
		if err := n.acceptForward(ctx); err != nil {
			return found, err
		}
	}
	after, err = s.modes(ctx, "nftables", status.ModeDefault, status.Ready)
	return append(append(found, "FORWARD drops no longer:"), after...), err
}

// keptByIPTables wants the rules to be where the daemon says that they are.
func (n *Node) keptByIPTables(ctx context.Context) error {
	tables, err := n.Output(ctx, "nft", "list", "tables")
	if err == nil && strings.Contains(string(tables), "inet selvage\n") {
		err = errors.New("there is a table of selvage's")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	return n.iptables(ctx, "$ -t nat -S SELVAGE-POSTRTG; $ -S SELVAGE-FWD")
}

// undoneByItself has FORWARD drop on all nodes, with iptables in the daemons' image, and says how long calls did not come
// through.
func undoneByItself(ctx context.Context, s *suite) ([]string, error) {
	for _, n := range s.nodes {
		if err := n.dropForward(ctx); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	if _, err := s.modes(ctx, "iptables", status.ModeForeignDrop, status.Ready); err != nil {
		return nil, err
	}
	took := time.Since(start)
	err := s.across(ctx)
	for _, n := range s.nodes {
		err = errors.Join(err, n.acceptForward(ctx))
	}
	if err != nil {
		return nil, err
	}
	_, err = s.modes(ctx, "nftables", status.ModeDefault, status.Ready)
	return []string{fmt.Sprintf("undone on all nodes %.1fs after the last began to drop, by a rule before that", took.Seconds())}, err
}
