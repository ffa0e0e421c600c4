package k8slab

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

//go:embed policy.yaml
var policies string

// policyBound is how long a change of policies may take until all nodes enforce it. It takes some milliseconds; the
// bound is for a busy machine.
const policyBound = 5 * time.Second

// strangerEvery is how often each stream of a stranger sends a datagram.
const strangerEvery = 10 * time.Millisecond

// Strangers are pods that the policies allow nothing: they send to a pod of their own node and to one of the next, in
// each family, from before there is a policy until after the last is gone.

// policiesOn has running daemons enforce network policies that enforce none.
func policiesOn(ctx context.Context, s *suite) ([]string, error) {
	if err := errors.Join(s.addStrangers(ctx), s.switchOff(ctx), s.switchOn(ctx)); err != nil {
		return nil, err
	}
	return s.strangersAnswered(ctx)
}

// switchOn has the daemons enforce network policies, as the manifest has it.
func (s *suite) switchOn(ctx context.Context) error {
	if err := s.setPolicies(ctx, "auto"); err != nil {
		return err
	}
	for _, n := range s.nodes {
		err := s.eventually(ctx, "the daemon of "+n.Name(), func() error {
			now, err := n.status(ctx)
			if err == nil && (now.Enforcement == nil || !now.Enforcement.Synced) {
				err = fmt.Errorf("it enforces no policies (%s): %+v", now.PoliciesOff, now.Enforcement)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// switchOff has the daemons enforce none, and wants no table to be left.
func (s *suite) switchOff(ctx context.Context) error {
	if err := s.setPolicies(ctx, "off"); err != nil {
		return err
	}
	for _, n := range s.nodes {
		tables, err := n.Output(ctx, "nft", "list", "tables")
		if err == nil && strings.Contains(string(tables), "selvage-policy") {
			err = fmt.Errorf("%s: a table is left: %s", n.Name(), tables)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setPolicies sets the daemons' --network-policy, as Documentation/network-policy.md says.
func (s *suite) setPolicies(ctx context.Context, value string) error {
	patch, err := json.Marshal(object{"data": object{"SELVAGED_NETWORK_POLICY": value}})
	if err != nil {
		return err
	}
	_, err = s.kubectl(ctx, "-n", daemons, "patch", "configmap", "selvage-flags", "--type=merge",
		"--patch", string(patch))
	if err == nil {
		_, err = s.kubectl(ctx, "-n", daemons, "rollout", "restart", daemonSetOf)
	}
	if err != nil {
		return err
	}
	return s.rollout(ctx, daemons, daemonSetOf)
}

func (s *suite) addStrangers(ctx context.Context) error {
	if len(s.strangers) > 0 {
		return nil
	}
	if err := s.later(ctx, len(s.nodes)); err != nil {
		return err
	}
	pods, err := s.podsOf(ctx, "default", "app=later")
	if err != nil {
		return err
	}
	if len(pods) != len(s.nodes) {
		return fmt.Errorf("%d strangers run, want one on each of %d nodes", len(pods), len(s.nodes))
	}
	for i, p := range pods {
		for _, to := range []*Pod{s.pods[i*perNode], s.pods[(i+1)*perNode%len(s.pods)]} {
			for _, f := range s.families() {
				r := agent.Request{Stream: &agent.Stream{To: to.echo(f), Every: strangerEvery}}
				if _, err := p.do(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	s.strangers = pods
	return nil
}

// strangerLosses adds up what strangers lost since the last time.
func (s *suite) strangerLosses(ctx context.Context) (sum agent.Losses, err error) {
	for _, p := range s.strangers {
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

// strangersAnswered waits until the strangers lose nothing.
func (s *suite) strangersAnswered(ctx context.Context) ([]string, error) {
	var l agent.Losses
	err := s.eventually(ctx, "answers to pods that nothing denies", func() (err error) {
		if l, err = s.strangerLosses(ctx); err == nil && (l.Lost > 0 || l.Sent == 0) {
			err = errors.New(l.String())
		}
		return err
	})
	return []string{"pods that nothing denies: " + l.String()}, err
}

// policiesApplied applies a default deny, with what the streams need allowed.
func policiesApplied(ctx context.Context, s *suite) ([]string, error) {
	if err := s.deletePolicies(ctx); err != nil { // of a try before
		return nil, err
	}
	if _, err := s.strangersAnswered(ctx); err != nil {
		return nil, err
	}
	var outside []string
	for _, f := range s.families() {
		a := s.lab.Outside().Addr(f)
		outside = append(outside, fmt.Sprintf("{ipBlock: {cidr: %q}}", fmt.Sprintf("%s/%d", a, a.BitLen())))
	}
	manifest := strings.Replace(policies, "OUTSIDE", strings.Join(outside, ", "), 1)
	start := time.Now()
	if err := s.apply(ctx, manifest); err != nil {
		return nil, err
	}
	applied := time.Now()
	time.Sleep(time.Until(applied.Add(policyBound)))
	l, err := s.strangerLosses(ctx)
	if err == nil && l.Lost == 0 {
		err = fmt.Errorf("pods that a policy denies: %s, want all of those after a while", l)
	}
	if err != nil {
		return nil, err
	}
	held, err := s.strangersDenied(ctx)
	return append([]string{fmt.Sprintf("from kubectl apply, which took %.2fs, to the first denied datagram %.2fs",
		applied.Sub(start).Seconds(), l.First.Sub(start).Seconds())}, held...), err
}

// strangersDenied wants nothing to be answered that the strangers sent since the last time, and sends more first.
func (s *suite) strangersDenied(ctx context.Context) ([]string, error) {
	l, err := s.strangerLosses(ctx)
	if err == nil && (l.Sent == 0 || l.Lost < l.Sent) {
		err = fmt.Errorf("pods that a policy denies: %d of %d datagrams were answered, want some and none answered",
			l.Sent-l.Lost, l.Sent)
	}
	return []string{fmt.Sprintf("pods that a policy denies: %d of %d datagrams answered", l.Sent-l.Lost, l.Sent)}, err
}

// whileDenied does something under policies, and wants nothing that these deny to be answered at any moment of it.
func whileDenied(run func(context.Context, *suite) ([]string, error)) func(context.Context, *suite) ([]string, error) {
	return func(ctx context.Context, s *suite) ([]string, error) {
		if _, err := s.strangersDenied(ctx); err != nil {
			return nil, err
		}
		found, err := run(ctx, s)
		if err != nil {
			return found, err
		}
		held, err := s.strangersDenied(ctx)
		return append(found, held...), err
	}
}

// daemonsKilled ends the daemon of each node as a crash does, and waits until the kubelet has started another.
func daemonsKilled(ctx context.Context, s *suite) ([]string, error) {
	for _, n := range s.nodes {
		before, err := n.daemons()
		if err == nil && len(before) != 1 {
			err = fmt.Errorf("%s: the processes %v are daemons, want one", n.Name(), before)
		}
		if err == nil {
			err = unix.Kill(before[0], unix.SIGKILL)
		}
		if err != nil {
			return nil, err
		}
		err = s.eventually(ctx, "another daemon on "+n.Name(), func() error {
			now, err := n.daemons()
			if err == nil && (len(now) != 1 || now[0] == before[0]) {
				err = fmt.Errorf("the daemons are %v, and the killed one was %d", now, before[0])
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return []string{"on each node in turn, with SIGKILL"}, s.rollout(ctx, daemons, daemonSetOf)
}

// daemons lists the processes on the node that run the daemon.
func (n *Node) daemons() (pids []int, err error) {
	var own string
	err = n.Do(func() (err error) {
		own, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		network, _ := os.Readlink(filepath.Join(dir, "ns/net")) // it may have ended
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		argv := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		if network != own || filepath.Base(argv[0]) != "selvaged" || len(argv) > 1 && argv[1] == "install-cni" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, err
}

// policiesDeleted deletes them, and wants what they denied to be answered within the bound.
func policiesDeleted(ctx context.Context, s *suite) ([]string, error) {
	start := time.Now()
	if err := s.deletePolicies(ctx); err != nil {
		return nil, err
	}
	deleted := time.Now()
	for _, p := range s.strangers {
		for _, f := range s.families() {
			err := s.eventually(ctx, "an answer to "+p.String(), func() error {
				_, err := p.call(ctx, "udp", s.pods[0].echo(f))
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	took := time.Since(deleted)
	if took > policyBound {
		return nil, fmt.Errorf("no policy denies anything any more, and pods got no answer for %s", took)
	}
	answered, err := s.strangersAnswered(ctx)
	return append([]string{fmt.Sprintf("kubectl delete took %.2fs; %.2fs later all pods had answers in each family",
		deleted.Sub(start).Seconds(), took.Seconds())}, answered...), err
}

func (s *suite) deletePolicies(ctx context.Context) error {
	_, err := s.kubectl(ctx, "delete", "networkpolicies", "--all")
	return err
}

// policiesOff switches them off, and on again: the manifest has them on.
func policiesOff(ctx context.Context, s *suite) ([]string, error) {
	if err := errors.Join(s.switchOff(ctx), s.later(ctx, 0), s.switchOn(ctx)); err != nil {
		return nil, err
	}
	s.strangers = nil
	return []string{"while off, no table of theirs was left on any node"}, nil
}
