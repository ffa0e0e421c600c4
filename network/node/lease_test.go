package node

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// simulated is a node with all that concerns its lease and nothing else: no kernel, no uplink.
type simulated struct {
	*leaseHolder
	id string
	ip netip.Addr
}

// logCounter keeps what is logged as an error. A warning may be: on a machine this busy a connection can break.
type logCounter struct {
	mu    sync.Mutex
	lines []string
}

func (c *logCounter) Levels() []logrus.Level { return logrus.AllLevels[:logrus.ErrorLevel+1] }

func (c *logCounter) Fire(e *logrus.Entry) error {
	// A busy machine may answer a ping too late. A node then has a broken connection, and claims again.
	err, _ := e.Data[logrus.ErrorKey].(error)
	if s, ok := grpcstatus.FromError(err); ok && s.Code() == codes.Unavailable {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprint(e.Message, e.Data))
	return nil
}

func quiet(hook logrus.Hook) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(hook)
	return log
}

// run runs the node until ctx ends; whenever its lease becomes final, it tells final.
func (s *simulated) run(ctx context.Context, store subnet.Store, log logrus.FieldLogger, config subnet.Config, final func(*simulated)) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := subnet.NewView()
	ips := [2]netip.Addr{subnet.IPv4: s.ip}
	if config.Ranges[subnet.IPv6].Enabled() {
		b := s.ip.As4()
		ips[subnet.IPv6] = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x:%x", b[2], b[3]))
	}
	s.leaseHolder = newLeaseHolder(store, view, log, background.Go)
	s.instanceID, s.publicIPs = s.id, ips
	s.advertise = func(subnets [2]netip.Prefix) subnet.Lease {
		l := subnet.Lease{BackendType: "vxlan", InstanceID: s.id}
		for f := range subnets {
			l.Endpoints[f] = subnet.Endpoint{Subnet: subnets[f], PublicIP: ips[f], Data: `{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}`}
		}
		return l
	}
	view.SetRules(subnet.Rules{Config: config, InstanceID: s.id, PublicIPs: ips})
	events := make(chan subnet.Event)
	watch := make(chan error, 1)
	go func() {
		watch <- store.Watch(ctx, func(e subnet.Event) error {
			select {
			case events <- e:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			<-watch
			return nil
		case err := <-watch:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the watch ended: %v", err)
		case e := <-events:
			view.Apply(e)
		case c := <-s.claims:
			s.claimEnded(ctx, c)
		case r := <-s.lossResults:
			s.holdEnded(r)
		case <-timer.C:
		}
		wake := alarm{now: time.Now()}
		if s.step(ctx, &wake) {
			final(s)
		}
		if !wake.at.IsZero() {
			timer.Reset(time.Until(wake.at))
		}
	}
}

// TestFiveHundredNodesAtOnce has 500 nodes claim from an empty /16 cut into /26, half of them dual stack.
func TestFiveHundredNodesAtOnce(t *testing.T) {
	const (
		nodes   = 500
		patient = time.Hour // as long as the test may take
	)
	defer goleak.VerifyNone(t)
	server, err := etcdserver.Start(t.Context(), etcdserver.Options{Dir: t.TempDir(), Flags: []string{"--unsafe-no-fsync"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	single, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","SubnetLen":26}`))
	if err != nil {
		t.Fatal(err)
	}
	dual, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","SubnetLen":26,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`))
	if err != nil {
		t.Fatal(err)
	}

	// A real node has a connection of its own. Ten nodes share one here, so that the test fits on a small machine.
	stores := make([]*etcd.Store, nodes/10)
	logged := &logCounter{}
	for i := range stores {
		stores[i], err = etcd.New(etcd.Options{
			Endpoints: []string{server.Endpoint()}, Log: quiet(logged),
			// 500 nodes and etcd on a core or two, watched by the race detector: a slow request is not a failed one.
			RequestTimeout: patient, DialTimeout: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stores[i].Close()
	}
	ctx, cancel := context.WithCancel(testctx.New(t))
	defer cancel()
	var mu sync.Mutex
	keys := map[string]string{} // the key that each node ended up with
	var running sync.WaitGroup
	for i := range nodes {
		s := &simulated{id: fmt.Sprintf("%032x", i), ip: netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(1 + i%250)})}
		config := single
		if i%2 == 0 {
			config = dual
		}
		running.Go(func() {
			err := s.run(ctx, stores[i/10], quiet(logged), config, func(s *simulated) {
				mu.Lock()
				defer mu.Unlock()
				keys[s.id] = s.record.Name
				if len(keys) == nodes {
					cancel()
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if len(keys) != nodes {
		t.Fatalf("%d nodes have a lease, want %d", len(keys), nodes)
	}
	if len(logged.lines) != 0 {
		t.Errorf("%d errors logged, the first: %s, the last: %s", len(logged.lines), logged.lines[0], logged.lines[len(logged.lines)-1])
	}
	checkLeases(t, server.Endpoint(), keys)
}

// checkLeases reads the leases from etcd by another way and compares them with what the nodes think.
func checkLeases(t *testing.T, endpoint string, keys map[string]string) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const prefix = etcd.DefaultPrefix + "/subnets/"
	got, err := client.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != len(keys) {
		t.Errorf("%d keys in etcd, want %d", len(got.Kvs), len(keys))
	}
	taken := map[netip.Prefix]string{}
	dual := 0
	for _, kv := range got.Kvs {
		key := string(kv.Key[len(prefix):])
		l, err := subnet.ParseLease(key, kv.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		if keys[l.InstanceID] != key {
			t.Errorf("%s is leased to %s, which thinks it has %s", key, l.InstanceID, keys[l.InstanceID])
		}
		if l.Has(subnet.IPv6) {
			dual++
		}
		for _, e := range l.Endpoints {
			if other, ok := taken[e.Subnet]; ok && e.Subnet.IsValid() {
				t.Errorf("%s is in %s and in %s", e.Subnet, key, other)
			}
			taken[e.Subnet] = key
		}
	}
	if dual != len(keys)/2 {
		t.Errorf("%d dual-stack leases, want %d", dual, len(keys)/2)
	}
}

// TestOnePublicIPOnEtcd: two nodes with one public IP end with two subnets, and then write nothing; a node that was
// installed again gets its subnet back.
func TestOnePublicIPOnEtcd(t *testing.T) {
	defer goleak.VerifyNone(t)
	server, err := etcdserver.Start(t.Context(), etcdserver.Options{Dir: t.TempDir(), Flags: []string{"--unsafe-no-fsync"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	config, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16"}`))
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := testctx.New(t)
	gained := make(chan string) // "node key"
	// start runs a node, as a process of its own would, until the function that it returns ends it.
	start := func(n int) (kill func()) {
		store, err := etcd.New(etcd.Options{Endpoints: []string{server.Endpoint()}, RequestTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(ctx)
		s := &simulated{id: fmt.Sprintf("%032x", n), ip: netip.MustParseAddr("192.0.2.200")}
		var running sync.WaitGroup
		running.Go(func() {
			defer store.Close()
			log := logrus.New()
			log.SetOutput(io.Discard)
			if err := s.run(ctx, store, log, config, func(s *simulated) { gained <- fmt.Sprint(n, " ", s.record.Name) }); err != nil {
				t.Error(err)
			}
		})
		return func() { cancel(); running.Wait() }
	}
	next := func(n int) (key string) {
		select {
		case got := <-gained:
			var who int
			if _, err := fmt.Sscan(got, &who, &key); err != nil || who != n {
				t.Fatalf("%q got a lease, want node %d", got, n)
			}
		case <-ctx.Done():
			t.Fatalf("node %d got no lease", n)
		}
		return key
	}
	revision := func() int64 {
		got, err := client.Get(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		return got.Header.Revision
	}

	kill1 := start(1)
	key1 := next(1)
	before := revision()
	kill2 := start(2)
	key2 := next(2)
	if key1 == key2 {
		t.Errorf("both nodes have %s", key1)
	}
	if n := revision() - before; n != 3 {
		t.Errorf("%d writes, want the question, the answer and the claim", n)
	}
	kill2()
	kill1() // neither gives its lease back
	kill3 := start(3)
	defer kill3()
	if key := next(3); key != key1 && key != key2 {
		t.Errorf("the node that was installed again has %s, want %s or %s", key, key1, key2)
	}
}
