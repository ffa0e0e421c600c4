package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// clusterTTL makes renewals, which come every third of it, frequent enough to be measured. A real cluster has a day.
const clusterTTL = 60 * time.Second

// clusters has thousands of nodes use one etcd, first directly, then through one of its gRPC proxies.
func clusters(ctx context.Context, b *bench) error {
	for _, via := range []string{"etcd", "proxy"} {
		if err := b.simulate(ctx, via); err != nil {
			return fmt.Errorf("by %s: %w", via, err)
		}
	}
	return nil
}

// simulation is a cluster of nodes that are real as far as etcd can tell.
type simulation struct {
	bench  *bench
	via    string
	server *etcdserver.Server
	client *clientv3.Client
	proxy  int // process id; 0: there is none
	nodes  []*simulated
}

func (b *bench) simulate(ctx context.Context, via string) (err error) {
	dir := filepath.Join(b.dir, "cluster-"+via)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s := &simulation{bench: b, via: via}
	if s.server, err = etcdserver.Start(ctx, etcdserver.Options{Binary: b.program("etcd"), Dir: dir}); err != nil {
		return err
	}
	defer s.server.Kill()
	if s.client, err = clientv3.New(clientv3.Config{Endpoints: []string{s.server.Endpoint()}, Logger: zap.NewNop()}); err != nil {
		return err
	}
	defer func() { _ = s.client.Close() }()
	if _, err := s.client.Put(ctx, etcd.DefaultPrefix+"/config", config(ipv4())); err != nil {
		return err
	}
	endpoint := s.server.Endpoint()
	if via == "proxy" {
		end, at, err := s.startProxy(ctx, dir)
		if err != nil {
			return err
		}
		defer end()
		endpoint = at
	}
	running, end := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer func() {
		end()
		background.Wait()
		for _, n := range s.nodes {
			_ = n.store.Close()
		}
	}()
	for i := range b.Nodes {
		n, err := newSimulated(i, endpoint)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, n)
	}
	rest, err := s.reading(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	failed := make(chan error, len(s.nodes))
	for _, n := range s.nodes {
		background.Go(func() {
			if err := n.run(running); err != nil {
				failed <- err
			}
		})
	}
	wait := func(what string, done func(*simulated) bool) error { return s.wait(ctx, failed, what, done) }

	if err := wait("started", func(n *simulated) bool { return n.final && n.peers == len(s.nodes)-1 }); err != nil {
		return err
	}
	after, err := s.phase(ctx, "Start", "nodes start at once", time.Since(began), rest)
	if err != nil {
		return err
	}

	const quiet = clusterTTL // three renewals a node
	if !pause(ctx, quiet) {
		return ctx.Err()
	}
	if after, err = s.phase(ctx, "Renew", fmt.Sprintf("nodes renew leases of %s", clusterTTL), quiet, after); err != nil {
		return err
	}

	began = time.Now()
	if err := s.mark(ctx, wait, 1); err != nil {
		return err
	}
	if after, err = s.phase(ctx, "Change", "nodes hear of one lease", time.Since(began), after); err != nil {
		return err
	}

	s.server.Kill() // as a crash would
	began = time.Now()
	if err := s.server.Restart(ctx); err != nil {
		return err
	}
	after.etcd, after.requests = usage{}, map[string]float64{} // a new process
	if err := s.mark(ctx, wait, 2); err != nil {
		return err
	}
	_, err = s.phase(ctx, "Restart", "nodes are back after a restart of etcd", time.Since(began), after)
	return err
}

// mark writes a lease of a node that does not exist, and waits until every node has it: what is older they have then too.
func (s *simulation) mark(ctx context.Context, wait func(string, func(*simulated) bool) error, version byte) error {
	l := absent(0, ipv4(), version)
	value, err := l.Value()
	if err != nil {
		return err
	}
	resp, err := s.client.Put(ctx, etcd.DefaultPrefix+"/subnets/"+l.Key(), string(value))
	if err != nil {
		return err
	}
	return wait("heard of a lease", func(n *simulated) bool { return n.final && n.revision >= resp.Header.Revision })
}

// wait waits until something holds for all nodes.
func (s *simulation) wait(ctx context.Context, failed <-chan error, what string, done func(*simulated) bool) error {
	const most = 5 * time.Minute
	for began := time.Now(); ; {
		waiting := 0
		for _, n := range s.nodes {
			n.mu.Lock()
			if !done(n) {
				waiting++
			}
			n.mu.Unlock()
		}
		if waiting == 0 {
			return nil
		}
		if time.Since(began) > most {
			return fmt.Errorf("after %s, %d of %d nodes have not %s", most, waiting, len(s.nodes), what)
		}
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// usage is what a process has used.
type usage struct {
	cpu    time.Duration
	memory memory
}

func usageOf(pid int) (u usage, err error) {
	if pid == 0 {
		return u, nil
	}
	if u.cpu, _, err = cpuOf(pid); err != nil {
		return u, err
	}
	u.memory, err = memoryOf(pid)
	return u, err
}

// reading is what everybody has used by a moment.
type reading struct {
	etcd, proxy    usage
	requests       map[string]float64 // that etcd has begun to serve, by method
	asked          uint64             // by nodes
	sent, received uint64             // bytes, by nodes
	messages       uint64             // answers and events, to nodes
	own            time.Duration      // CPU of the simulation itself
}

func (s *simulation) reading(ctx context.Context) (r reading, err error) {
	if r.etcd, err = usageOf(s.server.PID()); err != nil {
		return r, err
	}
	if r.proxy, err = usageOf(s.proxy); err != nil {
		return r, err
	}
	if r.own, _, err = cpuOf(os.Getpid()); err != nil {
		return r, err
	}
	all, err := metrics(ctx, s.server.Endpoint())
	if err != nil {
		return r, err
	}
	r.requests = counters(all, "grpc_server_started_total", "grpc_method")
	for _, n := range s.nodes {
		t := n.store.Health()
		for _, v := range t.Requests {
			r.asked += v
		}
		r.sent, r.received, r.messages = r.sent+t.Sent, r.received+t.Received, r.messages+t.Answers
	}
	return r, nil
}

// phase reports what has been used since the last reading.
func (s *simulation) phase(ctx context.Context, name, what string, took time.Duration, before reading) (after reading, err error) {
	if after, err = s.reading(ctx); err != nil {
		return after, err
	}
	p := Phase{
		Name: name, What: what, Via: s.via, Nodes: len(s.nodes), Seconds: took.Seconds(),
		Asked: after.asked - before.asked, Messages: after.messages - before.messages,
		Received: float64(after.received-before.received) / 1e6, Sent: float64(after.sent-before.sent) / 1e6,
		EtcdCPU: (after.etcd.cpu - before.etcd.cpu).Seconds(), EtcdPeak: after.etcd.memory.Peak / 1e6, EtcdRest: after.etcd.memory.Resident / 1e6,
		ProxyCPU: (after.proxy.cpu - before.proxy.cpu).Seconds(), ProxyPeak: after.proxy.memory.Peak / 1e6,
		BenchCPU: (after.own - before.own).Seconds(),
	}
	p.Served, p.ServedAll = since(before.requests, after.requests)
	s.bench.report.Phases = append(s.bench.report.Phases, p)
	s.bench.step("  by %s: %d %s: %s s, %s requests at etcd, etcd's CPU %s s", s.via, p.Nodes, what, number(p.Seconds), number(p.ServedAll), number(p.EtcdCPU))
	return after, nil
}

// startProxy runs etcd's gRPC proxy.
func (s *simulation) startProxy(ctx context.Context, dir string) (end func(), endpoint string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	address := l.Addr().String()
	l.Close() // nobody else is in this namespace
	log, err := os.Create(filepath.Join(dir, "proxy.log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	cmd := exec.Command(s.bench.program("etcd"), "grpc-proxy", "start", "--endpoints="+s.server.Endpoint(), "--listen-addr="+address)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start etcd's gRPC proxy: %w", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(done)
	}()
	end = func() {
		_ = cmd.Process.Kill() // fails only if it has ended
		<-done
	}
	for {
		if _, err := metrics(ctx, "http://"+address); err == nil {
			s.proxy = cmd.Process.Pid
			return end, "http://" + address, nil
		}
		select {
		case <-done:
			return nil, "", fmt.Errorf("etcd's gRPC proxy has ended: %s", tail(log.Name()))
		case <-ctx.Done():
			end()
			return nil, "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
