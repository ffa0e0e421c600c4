package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// members are faults of some members of several.
func members() []Fault {
	return slices.Concat(
		everywhere(Fault{Name: "leader killed, started again", Do: func(ctx context.Context, r *run) error {
			leader, err := r.store.leader(ctx)
			if err != nil {
				return err
			}
			r.store.kill(leader)
			r.follows(ctx, "without it")
			return r.store.start(ctx)
		}}, secure()),
		everywhere(Fault{Name: "leader stopped by a signal", Do: func(ctx context.Context, r *run) error {
			leader, err := r.store.leader(ctx)
			if err != nil {
				return err
			}
			return r.paused(ctx, []*member{leader}, func() { r.follows(ctx, "while it is stopped") })
		}, Within: 20 * time.Second}, secure()),
		everywhere(Fault{Name: "leader moved every second", Brief: true, Do: func(ctx context.Context, r *run) error {
			for range int(r.options.lasting(10, 3)) {
				if err := r.store.moveLeader(ctx); err != nil {
					return err
				}
				pause(ctx, time.Second)
			}
			return nil
		}}, secure()),
		everywhere(Fault{Name: "each member in turn parted from the others", Brief: true, Do: func(ctx context.Context, r *run) error {
			which := r.store.members
			if r.options.Short {
				which = which[:1]
			}
			for i, m := range which {
				heal, err := r.store.part(ctx, m)
				if err != nil {
					return err
				}
				r.rest(ctx, 5*time.Second, time.Second) // until it knows
				r.follows(ctx, fmt.Sprintf("member %d parted", i+1))
				if err := heal(); err != nil {
					return err
				}
			}
			return nil
		}}, secure()),
	)
}

// moveLeader makes the next member the leader. Only the leader takes that order.
func (s *store) moveLeader(ctx context.Context) error {
	return insist(ctx, "move the leader", func(ctx context.Context) error {
		leader, err := s.leader(ctx)
		if err != nil {
			return err
		}
		next := s.members[(slices.Index(s.members, leader)+1)%len(s.members)]
		status, err := s.admin.Status(ctx, next.Endpoint())
		if err != nil {
			return err
		}
		c := clientv3.Config{Endpoints: []string{leader.Endpoint()}, DialTimeout: 2 * time.Second, Logger: zap.NewNop()}
		if s.certs != nil {
			if c.TLS, err = s.certs.root(); err != nil {
				return err
			}
		}
		client, err := clientv3.New(c)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.MoveLeader(ctx, status.Header.MemberId)
		return err
	})
}

// part drops all packets between a member and the others, until heal is called.
func (s *store) part(ctx context.Context, m *member) (heal func() error, err error) {
	rules := func(action string) (err error) {
		for _, other := range s.others(m) {
			for _, way := range [][2]string{{m.addr, other.addr}, {other.addr, m.addr}} {
				out, e := exec.CommandContext(ctx, "iptables", "-w", action, "INPUT", "-s", way[0], "-d", way[1], "-j", "DROP").CombinedOutput()
				if e != nil {
					err = errors.Join(err, fmt.Errorf("iptables %s: %w: %s", action, e, out))
				}
			}
		}
		return err
	}
	return func() error { return rules("-D") }, rules("-A")
}
