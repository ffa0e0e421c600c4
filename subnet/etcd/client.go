package etcd

import (
	"context"
	"fmt"
	"net"
	"path"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

const (
	// A connection on which nothing has arrived for so long is pinged, and closed if there is no answer. etcd closes
	// connections that are pinged more often than every 5 s (--grpc-keepalive-min-time), and those that are pinged
	// while no stream is open; so PermitWithoutStream stays off.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second

	// Largest answer that is accepted. A page of lease records has one or two tenths of a megabyte; what is stored
	// under our prefix must not be able to cost gigabytes of memory. etcd itself keeps values under 1.5 MB.
	maxAnswer = 8 << 20
)

// Store is a [subnet.Store] on etcd. Make one with [New].
type Store struct {
	opts    Options
	client  *clientv3.Client
	watches pb.WatchClient
	leases  pb.LeaseClient
	keys    keyspace
	contact *outage.Outage // of Watch

	connections *connections
	login       *login
	meter       *meter

	mu     sync.Mutex
	spares []*grant           // granted and not known to be used
	holds  map[*hold]struct{} // while Hold runs
	latest map[identity]subnet.Record
}

var (
	_ subnet.Store          = (*Store)(nil)
	_ subnet.HealthReporter = (*Store)(nil)
	_ subnet.Examiner       = (*Store)(nil)
	_ subnet.AccessReporter = (*Store)(nil)
	_ subnet.Networked      = (*Store)(nil)
	_ subnet.Expirer        = (*Store)(nil)
	_ subnet.Challenger     = (*Store)(nil)
)

// New returns a store. It sends no request yet: Watch waits for an etcd that is down or rejects us. The errors are
// about the options, and name the file or endpoint that is wrong.
func New(opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	open := &connections{open: map[*net.TCPConn]struct{}{}}
	dial := []grpc.DialOption{
		grpc.WithContextDialer(open.dial),
		// gRPC would wait up to two minutes between attempts, long after etcd is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: retryFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: opts.retryLast,
			},
			MinConnectTimeout: opts.DialTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	}
	if opts.secure() {
		certs, err := newCertificates(opts)
		if err != nil {
			return nil, err
		}
		dial = append(dial, grpc.WithTransportCredentials(certs))
	} else if opts.tlsFiles() {
		opts.Log.Warnf("connecting to etcd without TLS: certificates are configured, but %s is not https",
			opts.Endpoints[0])
	}
	who := newLogin(opts.PasswordFile)
	meter := newMeter()
	dial = append(dial, grpc.WithChainUnaryInterceptor(who.unary, failFast), grpc.WithStatsHandler(meter))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: opts.Endpoints,
		Username:  opts.Username, Password: opts.Password,
		DialTimeout:       opts.DialTimeout,
		DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingTimeout,
		MaxCallRecvMsgSize: maxAnswer,
		MaxUnaryRetries:    4,
		Logger:             zap.NewNop(),
		DialOptions:        append(dial, opts.dial...),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	who.started.Store(true)
	return &Store{
		opts:    opts,
		client:  client,
		watches: pb.NewWatchClient(client.ActiveConnection()),
		leases:  pb.NewLeaseClient(client.ActiveConnection()),
		keys:    newKeyspace(opts.Prefix),
		contact: &outage.Outage{
			Log: opts.Log, Lost: "etcd unavailable; the data path is unaffected", Back: "reconnected to etcd",
		},
		holds:  map[*hold]struct{}{},
		latest: map[identity]subnet.Record{},

		connections: open,
		login:       who,
		meter:       meter,
	}, nil
}

// Close ends the connections. End Watch and Hold first.
func (s *Store) Close() error {
	if err := s.client.Close(); err != nil && err != context.Canceled {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// Outage implements [subnet.HealthReporter].
func (s *Store) Outage() subnet.Outage {
	since, cause := s.contact.State()
	return subnet.Outage{Since: since, Problem: problemOf(cause)}
}

// deadline bounds one request, and has a member that is cut off from the others reject it at once, so that it is sent
// to another one. The member would let the request wait for a leader otherwise.
func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), s.opts.RequestTimeout)
}

// failFast makes a request fail at once, with the reason, when no endpoint can be reached. etcd's client would let it
// wait for its deadline, and return no reason.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return next(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false))...)
}

// keyspace knows where things are in etcd.
type keyspace struct {
	config  string // the config's key
	subnets string // what lease keys start with
	end     string // the end of the range of lease keys
}

func newKeyspace(prefix string) keyspace {
	subnets := path.Join(prefix, "subnets") + "/"
	return keyspace{config: path.Join(prefix, "config"), subnets: subnets, end: clientv3.GetPrefixRangeEnd(subnets)}
}

// lease returns what follows <prefix>/subnets/ in an etcd key, and whether it is the key of a lease at all.
func (k keyspace) lease(key []byte) (string, bool) {
	if len(key) < len(k.subnets) || string(key[:len(k.subnets)]) != k.subnets {
		return "", false
	}
	return string(key[len(k.subnets):]), true
}

// record decodes what etcd holds.
func (k keyspace) record(kv *mvccpb.KeyValue) subnet.Record {
	key, _ := k.lease(kv.Key)
	r := subnet.DecodeRecord(key, kv.Value)
	r.Order, r.Version, r.LeaseID = kv.CreateRevision, kv.ModRevision, kv.Lease
	return r
}
