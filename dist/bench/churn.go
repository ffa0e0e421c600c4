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
	"github.com/selvage-net/selvage/subnet"
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

// churnLeases has some leases change, and others come and go. In etcd, half of those run out.
func (s *soak) churnLeases(ctx context.Context, version byte) error {
	const from, half, to = soakLeases, soakLeases + soakChurn/2, soakLeases + soakChurn
	const between = 100 * time.Millisecond // for the nodes to do something about it
	store, byHand := s.lab.Store(), absents(from, to, 0)
	expire := func() error { return nil }
	if etcd := s.lab.Etcd(); etcd != nil {
		byHand = absents(from, half, 0)
		var err error
		if expire, err = putExpiring(ctx, etcd, absents(half, to, 0)); err != nil {
			return err
		}
	}
	err := errors.Join(store.PutLeases(ctx, absents(0, soakChurn, version)), store.PutLeases(ctx, byHand))
	if err != nil {
		return err
	}
	pause(ctx, between)
	if err := errors.Join(expire(), store.DeleteLeases(ctx, byHand)); err != nil {
		return err
	}
	s.done.leases += 3 * soakChurn
	return nil
}

// absents are the leases of nodes that do not exist, from one number up to another.
func absents(from, to int, version byte) (leases []subnet.Lease) {
	for i := from; i < to; i++ {
		leases = append(leases, absent(i, dual(), version))
	}
	return leases
}

// putExpiring writes leases that run out. The function returned has them do so.
func putExpiring(ctx context.Context, etcd *lab.Etcd, leases []subnet.Lease) (expire func() error, err error) {
	grant, err := etcd.Client().Grant(ctx, int64(soakLeaseTTL.Seconds()))
	if err != nil {
		return nil, fmt.Errorf("grant a lease: %w", err)
	}
	expire = func() error {
		if _, err := etcd.Client().Revoke(ctx, grant.ID); err != nil { // to etcd the same as its end
			return fmt.Errorf("revoke a lease: %w", err)
		}
		return nil
	}
	return expire, etcd.WriteLeases(ctx, leases, clientv3.WithLease(grant.ID))
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

// storeAway kills the store and starts it again. Pods come and go as ever meanwhile.
func (s *soak) storeAway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soakMost)
	defer cancel()
	s.lab.Store().Kill()
	err := s.churnPods(ctx)
	pause(ctx, soakAway)
	s.done.away++
	return errors.Join(err, s.lab.Store().Start(ctx))
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
