package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
)

// churn has leases and pods come and go at the same time. Other MAC addresses are those of that version.
func (s *soak) churn(ctx context.Context, version byte) error {
	ctx, cancel := context.WithTimeout(ctx, soakMost)
	defer cancel()
	var both sync.WaitGroup
	var leases, pods error
	both.Go(func() { leases = s.churnLeases(ctx, version) })
	both.Go(func() { pods = s.churnPods(ctx) })
	both.Wait()
	return errors.Join(leases, pods, s.whole(ctx))
}

// churnLeases has some leases change, and others come and go: half of them by hand, half by running out.
func (s *soak) churnLeases(ctx context.Context, version byte) error {
	const from, half, to = soakLeases, soakLeases + soakChurn/2, soakLeases + soakChurn
	const between = 100 * time.Millisecond // for the nodes to do something about it
	if err := s.leases.put(ctx, 0, soakChurn, version); err != nil {
		return err
	}
	grant, err := s.leases.client.Grant(ctx, int64(soakLeaseTTL.Seconds()))
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	if err := errors.Join(s.leases.put(ctx, from, half, 0), s.leases.put(ctx, half, to, 0, clientv3.WithLease(grant.ID))); err != nil {
		return err
	}
	pause(ctx, between)
	if _, err := s.leases.client.Revoke(ctx, grant.ID); err != nil { // to etcd the same as its end
		return fmt.Errorf("revoke a lease: %w", err)
	}
	if err := s.leases.remove(ctx, from, half); err != nil {
		return err
	}
	s.done.leases += 3 * soakChurn
	return nil
}

// churnPods has pods come on each node, probe each other, and go.
func (s *soak) churnPods(ctx context.Context) (err error) {
	var pods []*lab.Pod
	defer func() {
		for _, p := range pods {
			err = errors.Join(err, s.lab.DelPod(ctx, p))
		}
	}()
	for range soakPods {
		for _, n := range s.lab.Nodes() {
			p, err := s.lab.AddPod(ctx, n, "")
			if err != nil {
				return err
			}
			pods = append(pods, p)
		}
	}
	for i, p := range pods {
		for _, r := range s.lab.ProbeShared(ctx, p.Endpoint, pods[(i+1)%len(pods)].Endpoint) {
			if r.Err != nil {
				return fmt.Errorf("%s does not reach %s over %s: %w", r.From, r.To, r.Family, r.Err)
			}
		}
	}
	s.done.pods += len(pods)
	return nil
}

// etcdAway kills etcd and starts it again. Pods come and go as ever meanwhile.
func (s *soak) etcdAway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soakMost)
	defer cancel()
	s.lab.Etcd().Kill()
	err := s.churnPods(ctx)
	pause(ctx, soakEtcdAway)
	s.done.etcd++
	return errors.Join(err, s.lab.Etcd().Start(ctx))
}

// ask has each daemon asked what operators and their programs ask.
func (s *soak) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soakMost)
	defer cancel()
	for i, n := range s.lab.Nodes() {
		c := status.NewClient(fmt.Sprintf("/proc/%d/root%s", n.PID(), status.DefaultSocket)) // each node has a /run of its own
		_, err := c.Status(ctx)
		peers, peersErr := c.Peers(ctx)
		_, explainErr := c.Explain(ctx, absent(i, dual(), 0).Endpoints[i%2].Subnet.Addr().Next())
		if err := errors.Join(err, peersErr, explainErr); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
		if want := soakLeases + len(s.lab.Nodes()) - 1; len(peers) != want {
			return fmt.Errorf("%s names %d peers, want %d", n.Name(), len(peers), want)
		}
	}
	return nil
}
