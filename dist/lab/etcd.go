package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
)

// etcdPrefix is where flannel and selvage keep their keys unless told otherwise.
const etcdPrefix = "/coreos.com/network"

// leasePrefix is what the keys of leases begin with.
const leasePrefix = etcdPrefix + "/subnets/"

// Etcd is the lab's etcd cluster. A single member listens on 172.31.0.1:2379, or in a lab of IPv6 alone on
// [fd00:31::1]:2379; several, on ports of that address that are chosen when they start.
type Etcd struct {
	client *clientv3.Client

	mu      sync.Mutex // a server is not safe for concurrent use
	servers []*etcdserver.Server
}

// startEtcd starts a cluster of n members on the address host, with data and logs below dir.
func startEtcd(ctx context.Context, dir, bin string, host netip.Addr, n int) (*Etcd, error) {
	options := etcdserver.Options{Binary: filepath.Join(bin, "etcd"), Dir: dir, Host: host.String()}
	if n == 1 {
		options.ClientPort, options.PeerPort = 2379, 2380
		// Alone, a member waits out an election timeout for nobody: a second, unless told otherwise.
		options.Flags = []string{"--heartbeat-interval=20", "--election-timeout=100"}
	}
	servers, err := etcdserver.StartCluster(ctx, n, options)
	if err != nil {
		return nil, err
	}
	e := &Etcd{servers: servers}
	var endpoints []string
	for _, s := range servers {
		endpoints = append(endpoints, s.Endpoint())
	}
	e.client, err = clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		e.Kill()
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return e, nil
}

// Client returns a client of all members. It is the lab's and is closed with it.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Endpoints returns the members' client URLs.
func (e *Etcd) Endpoints() []string { return e.client.Endpoints() }

// Members returns how many members there are, running or not.
func (e *Etcd) Members() int { return len(e.servers) }

// Member calls fn with member i, from 0: to stop, kill, pause or restart it. No other method uses a member meanwhile.
func (e *Etcd) Member(i int, fn func(*etcdserver.Server) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := fn(e.servers[i]); err != nil {
		return fmt.Errorf("etcd member %d: %w", i, err)
	}
	return nil
}

// Kill ends all members at once, as a power cut would. Their data stays.
func (e *Etcd) Kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.servers {
		s.Kill()
	}
}

// Start starts the members that do not run, from the data they have, and waits until they serve.
func (e *Etcd) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	// Together: one of several does not serve before most of them are there.
	errs := make([]error, len(e.servers))
	var wg sync.WaitGroup
	for i, s := range e.servers {
		if s.PID() == 0 {
			wg.Go(func() { errs[i] = s.Restart(ctx) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (e *Etcd) close() error {
	e.Kill()
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) { // which Close itself does
		return fmt.Errorf("close the etcd client: %w", err)
	}
	return nil
}

// PutConfig writes the network configuration.
func (e *Etcd) PutConfig(ctx context.Context, config string) error {
	if _, err := e.client.Put(ctx, etcdPrefix+"/config", config); err != nil {
		return fmt.Errorf("write the network configuration: %w", err)
	}
	return nil
}

// Leases reads every lease, ordered by node name. A key that holds none is an error.
func (e *Etcd) Leases(ctx context.Context) ([]subnet.Lease, error) {
	answer, err := e.client.Get(ctx, leasePrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	var leases []subnet.Lease
	for _, kv := range answer.Kvs {
		lease, err := subnet.ParseLease(strings.TrimPrefix(string(kv.Key), leasePrefix), kv.Value)
		if err != nil {
			return nil, fmt.Errorf("read the leases: %w", err)
		}
		leases = append(leases, lease)
	}
	slices.SortFunc(leases, byNodeName)
	return leases, nil
}

// PutLeases implements [Store].
func (e *Etcd) PutLeases(ctx context.Context, leases []subnet.Lease) error {
	return e.WriteLeases(ctx, leases)
}

// WriteLeases is PutLeases with options, such as clientv3.WithLease: leases that expire.
func (e *Etcd) WriteLeases(ctx context.Context, leases []subnet.Lease, options ...clientv3.OpOption) error {
	return e.together(ctx, "write leases", leases, func(l subnet.Lease) (clientv3.Op, error) {
		value, err := l.Value()
		return clientv3.OpPut(leasePrefix+l.Key(), string(value), options...), err
	})
}

// DeleteLeases implements [Store].
func (e *Etcd) DeleteLeases(ctx context.Context, leases []subnet.Lease) error {
	return e.together(ctx, "delete leases", leases, func(l subnet.Lease) (clientv3.Op, error) {
		return clientv3.OpDelete(leasePrefix + l.Key()), nil
	})
}

// together does something with leases, many of them in each transaction.
func (e *Etcd) together(ctx context.Context, what string, leases []subnet.Lease,
	op func(subnet.Lease) (clientv3.Op, error)) error {
	const many = 100 // etcd takes 128 operations
	for some := range slices.Chunk(leases, many) {
		var ops []clientv3.Op
		for _, l := range some {
			o, err := op(l)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			ops = append(ops, o)
		}
		if _, err := e.client.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// Version implements [Store]: it is the key's mod revision.
func (e *Etcd) Version(ctx context.Context, l subnet.Lease) (int64, error) {
	key := leasePrefix + l.Key()
	answer, err := e.client.Get(ctx, key)
	if err == nil && len(answer.Kvs) != 1 {
		err = fmt.Errorf("there is no %s", key)
	}
	if err != nil {
		return 0, fmt.Errorf("read the lease of %s: %w", l.NodeName, err)
	}
	return answer.Kvs[0].ModRevision, nil
}
