package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
)

const (
	prefix     = "/coreos.com/network"
	subnetKeys = prefix + "/subnets/"

	clientPort = 12379 // behind the proxy
	peerPort   = 2380
	proxyPort  = 2379
	// quota is the space that etcd may use, in bytes: little enough to be used up in a second.
	quota = 32 << 20
)

// store is the etcd that is broken.
type store struct {
	bin, dir string // dir: data and logs
	members  []*member
	certs    *certificates // nil: it is spoken to in the clear, and everybody may do everything
	admin    *clientv3.Client
	reads    atomic.Int64 // requests of admin's, each attempt of them, that daemons make too
}

type member struct {
	*etcdserver.Server // nil: it was never started
	addr               string
	proxy              *proxy
}

// newStore starts the members.
func newStore(ctx context.Context, bin, dir, certDir string, n int, secure bool) (*store, error) {
	s := &store{bin: bin, dir: dir}
	var addrs []string
	for i := range n {
		// TEST-NET-1, RFC 5737. On lo, so that they are there before the lab's network is.
		addr := fmt.Sprintf("192.0.2.%d", 11+i)
		addrs = append(addrs, addr)
		s.members = append(s.members, &member{addr: addr, proxy: newProxy(
			net.JoinHostPort(addr, fmt.Sprint(proxyPort)), net.JoinHostPort(addr, fmt.Sprint(clientPort)))})
		if err := addLoopback(addr); err != nil {
			return s, err
		}
	}
	if secure {
		s.certs = &certificates{certDir}
		if err := s.certs.renew(addrs); err != nil {
			return s, err
		}
	}
	if err := s.start(ctx); err != nil {
		return s, err
	}
	if err := s.connect(); err != nil {
		return s, err
	}
	return s, s.secure(ctx)
}

// options are those of a member. Each is started by itself, at an address of its own, so that it can be parted from the
// others; they are told of each other by a flag that overrides etcdserver's.
func (s *store) options(i int) etcdserver.Options {
	var all []string
	for j, m := range s.members {
		all = append(all, fmt.Sprintf("m%d=http://%s", j, net.JoinHostPort(m.addr, fmt.Sprint(peerPort))))
	}
	o := etcdserver.Options{
		Binary: filepath.Join(s.bin, "etcd"), Dir: s.dir, Name: fmt.Sprintf("m%d", i), Host: s.members[i].addr,
		ClientPort: clientPort, PeerPort: peerPort,
		Flags: []string{
			"--initial-cluster=" + strings.Join(all, ","), fmt.Sprintf("--quota-backend-bytes=%d", quota),
			// What a member says to the others comes from its own address: by it, a firewall can part them.
			"--feature-gates=SetMemberLocalAddr=true",
		},
	}
	if len(s.members) == 1 {
		// Alone, a member waits out an election timeout for nobody.
		o.Flags = append(o.Flags, "--heartbeat-interval=20", "--election-timeout=100")
	}
	if s.certs != nil {
		o.CertFile, o.KeyFile, o.ClientCAFile = s.certs.file("server.pem"), s.certs.file("server.key"), s.certs.file("ca.pem")
	}
	return o
}

// start starts the members that do not run, together, and has the proxies of all take connections.
func (s *store) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	errs := make([]error, len(s.members))
	var starting sync.WaitGroup
	for i, m := range s.members {
		if m.Server != nil && m.PID() != 0 {
			continue
		}
		starting.Go(func() {
			if m.Server != nil {
				errs[i] = m.Restart(ctx)
			} else {
				m.Server, errs[i] = etcdserver.Start(ctx, s.options(i))
			}
			if errs[i] == nil {
				errs[i] = m.proxy.up()
			}
		})
	}
	starting.Wait()
	return errors.Join(errs...)
}

// kill ends members at once: those given, or all.
func (s *store) kill(which ...*member) {
	if len(which) == 0 {
		which = s.members
	}
	for _, m := range which {
		m.Kill()
		m.proxy.down()
	}
}

// stop ends a member in an orderly way.
func (m *member) stop() error {
	err := m.Server.Stop()
	m.proxy.down()
	return err
}

// connect makes the client for ourselves. It speaks to the members without the proxies.
func (s *store) connect() error {
	if s.admin != nil {
		s.admin.Close() // fails because it was cancelled, which it does itself
	}
	count := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method == pb.KV_Range_FullMethodName {
			s.reads.Add(1)
		}
		return next(ctx, method, req, reply, conn, opts...)
	}
	c := clientv3.Config{
		DialTimeout: 2 * time.Second, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)},
	}
	for _, m := range s.members {
		c.Endpoints = append(c.Endpoints, m.Endpoint())
	}
	if s.certs != nil {
		var err error
		if c.TLS, err = s.certs.root(); err != nil {
			return fmt.Errorf("connect to etcd: %w", err)
		}
	}
	var err error
	if s.admin, err = clientv3.New(c); err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	return nil
}

// put writes a key below the prefix, again and again until etcd takes it.
func (s *store) put(ctx context.Context, key, value string) error {
	return insist(ctx, "write "+key, func(ctx context.Context) error {
		_, err := s.admin.Put(ctx, prefix+"/"+key, value)
		return err
	})
}

// delete removes one.
func (s *store) delete(ctx context.Context, key string) error {
	return insist(ctx, "delete "+key, func(ctx context.Context) error {
		_, err := s.admin.Delete(ctx, prefix+"/"+key)
		return err
	})
}

// leases reads all leases, by node name. A key that holds none is left out.
func (s *store) leases(ctx context.Context) (map[string][]subnet.Lease, error) {
	// A member that is parted from the others is to refuse, not to wait.
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), time.Second)
	defer cancel()
	resp, err := s.admin.Get(ctx, subnetKeys, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	leases := map[string][]subnet.Lease{}
	for _, kv := range resp.Kvs {
		if l, err := subnet.ParseLease(strings.TrimPrefix(string(kv.Key), subnetKeys), kv.Value); err == nil {
			leases[l.NodeName] = append(leases[l.NodeName], l)
		}
	}
	return leases, nil
}

// leader returns the member that leads.
func (s *store) leader(ctx context.Context) (*member, error) {
	var leader *member
	err := insist(ctx, "find the leader", func(ctx context.Context) error {
		for _, m := range s.members {
			status, err := s.admin.Status(ctx, m.Endpoint())
			if err == nil && status.Leader == status.Header.MemberId {
				leader = m
				return nil
			}
		}
		return errors.New("there is none")
	})
	return leader, err
}

// others returns the members but one.
func (s *store) others(but *member) (others []*member) {
	for _, m := range s.members {
		if m != but {
			others = append(others, m)
		}
	}
	return others
}

// close ends everything.
func (s *store) close() error {
	for _, m := range s.members {
		m.proxy.down()
		if m.Server != nil {
			m.Kill()
		}
	}
	if s.admin != nil {
		s.admin.Close()
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, m := range s.members {
		err = errors.Join(err, netlink.AddrDel(lo, &netlink.Addr{IPNet: hostOnly(m.addr)}))
	}
	return err
}

// insist tries until it works, or for half a minute.
func insist(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		short, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), 2*time.Second)
		err := try(short)
		cancel()
		if err == nil {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// pause waits for d, and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
