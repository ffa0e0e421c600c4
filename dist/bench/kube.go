package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// kubeStore is one of the daemons to be compared in the part "kube", with its store.
type kubeStore struct {
	program
	store store
	// what it measured
	inPlace, ready, cpu, requests, received []float64
	by                                      map[string]float64
	rest                                    kubeRest
}

// kubeRest is what a daemon takes at rest, and how soon it has a new Node.
type kubeRest struct {
	received, cpu, requests float64 // B/s, ms/s, in all
	memory                  memory  // at the end
	added, heard            []float64
}

// kubes is the part.
func kubes(ctx context.Context, b *bench) (err error) {
	if _, err := os.Stat(b.program("k8s/kube-apiserver")); err != nil {
		return fmt.Errorf("no kube-apiserver to measure with (%w); run: make bin/k8s/kube-apiserver", err)
	}
	flannel := cmp.Or(b.Peer, b.program("flanneld"))
	c, err := b.cluster(ctx, b.KubeNodes, ipv4())
	if err != nil {
		return err
	}
	began := time.Now()
	k, err := b.newKubeCluster(ctx, b.KubeNodes, "selvaged", "peer")
	if err != nil {
		return err
	}
	defer k.close()
	whole, metadata, err := k.sizes(ctx)
	if err != nil {
		return err
	}
	b.report.note("kube: %d Nodes of %d bytes in protobuf, %d of them metadata; made in %s; %s",
		b.KubeNodes, whole, metadata, time.Since(began).Round(time.Second), loadAverage())
	selvaged := program{name: "selvaged", path: b.program("selvaged")}
	etcd := &kubeStore{program: selvaged, store: c}
	own := &kubeStore{program: selvaged, store: &kubeUser{kubeCluster: k, user: "selvaged"}}
	all := []*kubeStore{etcd, own}
	var peer *kubeStore
	switch _, err := os.Stat(flannel); {
	case err == nil:
		peer = &kubeStore{program: program{name: "peer", path: flannel}, store: &kubeUser{kubeCluster: k, user: "peer"}}
		all = append(all, peer)
	case errors.Is(err, fs.ErrNotExist):
		b.report.note("kube: there is no %s to compare with; make bin/flanneld builds it", flannel)
	default:
		return err
	}
	beating, stop := context.WithCancel(ctx)
	ended := make(chan beats, 1)
	began = time.Now()
	go func() { ended <- k.beat(beating) }()
	err = b.kubeMeasure(ctx, k, all)
	stop()
	beats := <-ended
	if err != nil {
		return err
	}
	if err := b.kubeReport(k, etcd, own, peer); err != nil {
		return err
	}
	b.report.note("kube: kubelets wrote %s times a second; %s",
		number(float64(beats.written)/time.Since(began).Seconds()), loadAverage())
	if beats.failed > 0 {
		b.report.note("kube: %d writes of kubelets failed, at last: %v", beats.failed, beats.last)
	}
	return nil
}

// loadAverage is the machine's, for the reader to judge the figures by.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "load average unknown"
	}
	return "load average " + strings.Join(fields[:3], " ")
}

// kubeMeasure starts each daemon several times, in turns, and then once for longer.
func (b *bench) kubeMeasure(ctx context.Context, k *kubeCluster, all []*kubeStore) error {
	for range b.Rounds {
		took, err := k.bareList(ctx)
		if err != nil {
			return err
		}
		k.lists = append(k.lists, milliseconds(took))
		for _, x := range all {
			s, err := b.start(ctx, x.program, x.store, settle, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", x, err)
			}
			x.inPlace, x.ready = append(x.inPlace, milliseconds(s.inPlace)), append(x.ready, milliseconds(s.ready))
			x.cpu, x.requests = append(x.cpu, milliseconds(s.own+s.programs)), append(x.requests, s.requests)
			x.received, x.by = append(x.received, s.received/1e6), s.by
		}
	}
	for _, x := range all {
		b.step("  %s at rest", x)
		_, err := b.start(ctx, x.program, x.store, atRest, func(n *node, d *daemon) error {
			if err := x.atRest(ctx, d, n, b.KubeRest); err != nil {
				return err
			}
			if _, ok := x.store.(*kubeUser); !ok {
				return nil // the part "latency" measures that of etcd
			}
			return b.kubeAdd(ctx, k, x, n, d)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", x, err)
		}
	}
	return nil
}

// String names a daemon with its store.
func (x *kubeStore) String() string {
	if _, ok := x.store.(*kubeUser); ok {
		return x.name + " with the Kubernetes API"
	}
	return x.name + " with etcd"
}

// atRest measures what the daemon takes while kubelets write and nothing else happens.
func (x *kubeStore) atRest(ctx context.Context, d *daemon, n *node, window time.Duration) error {
	read := func() (r kubeRest, err error) {
		own, programs, err := d.cpu()
		if err != nil {
			return r, err
		}
		by, err := x.store.requests(ctx)
		if err != nil {
			return r, err
		}
		_, r.requests = since(nil, by)
		r.cpu = milliseconds(own + programs)
		if r.received, err = n.received(); err != nil {
			return r, err
		}
		r.memory, err = d.memory()
		return r, err
	}
	before, err := read()
	if err != nil {
		return err
	}
	began := time.Now()
	if !pause(ctx, window) {
		return ctx.Err()
	}
	after, err := read()
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	x.rest = kubeRest{
		received: (after.received - before.received) / seconds, cpu: (after.cpu - before.cpu) / seconds,
		requests: after.requests - before.requests, memory: after.memory,
	}
	return nil
}

// kubeAdd adds one Node after the other, and takes the time from the API server's answer until the kernel has it; and,
// as its floor, until a bare watch has heard of it.
func (b *bench) kubeAdd(ctx context.Context, k *kubeCluster, x *kubeStore, n *node, d *daemon) error {
	heard, end, err := k.hear(ctx)
	if err != nil {
		return err
	}
	defer end()
	for i := k.nodes; i < k.nodes+b.KubeAdded; i++ {
		uid, err := k.register(ctx, i)
		if err != nil {
			return err
		}
		complete := n.listen.expect(entries(i, i+1, ipv4(), 0))
		answered, err := k.annotate(ctx, i, uid)
		if err != nil {
			return err
		}
		at, err := d.await(ctx, complete, n.listen.missing)
		if err != nil {
			return err
		}
		x.rest.added = append(x.rest.added, milliseconds(at.Sub(answered)))
		for e := range heard {
			if bytes.Contains(e.frame, []byte(nodeName(i))) && bytes.Contains(e.frame, []byte("kube-subnet-manager")) {
				x.rest.heard = append(x.rest.heard, milliseconds(e.at.Sub(answered)))
				break
			}
		}
		if !pause(ctx, between) {
			return ctx.Err()
		}
	}
	return k.remove(ctx, k.nodes, k.nodes+b.KubeAdded)
}

// kubeReport reports what was measured. peer may be nil.
func (b *bench) kubeReport(k *kubeCluster, etcd, own, peer *kubeStore) error {
	of, words := fmt.Sprintf("/nodes=%d", k.nodes), fmt.Sprintf("%d Nodes: ", k.nodes)
	add := func(name, what, unit string, from func(*kubeStore) []float64, change func(*Figure)) {
		f := Figure{Name: "Kube" + name + of, What: words + what, Unit: unit, Samples: from(own)}
		if change != nil {
			change(&f)
		}
		b.report.add(f)
		if peer != nil {
			b.report.peer(f.Name, "peer", from(peer), 0)
		}
	}
	// atMostOf is a limit that is a part of the peer's figure.
	atMostOf := func(from func(*kubeStore) []float64, divisor float64) func(*Figure) {
		return func(f *Figure) {
			if peer != nil {
				f.Limit, f.LimitIs = atMost(median(from(peer))/divisor), fmt.Sprintf("peer / %g", divisor)
			}
		}
	}
	inEtcd := func(from func(*kubeStore) []float64) func(*Figure) {
		return func(f *Figure) {
			f.Floor = &Reference{What: "with etcd", Value: median(from(etcd)), Samples: from(etcd)}
		}
	}
	inPlace := func(x *kubeStore) []float64 { return x.inPlace }
	add("Start", "start until all is in the kernel", "ms", inPlace, func(f *Figure) {
		inEtcd(inPlace)(f)
		f.Limit, f.LimitIs = atMost(2*f.Floor.Value), "2 × with etcd"
	})
	b.report.add(Figure{
		Name: "KubeList" + of, What: words + "a bare list of the metadata", Unit: "ms", Samples: k.lists,
	})
	for _, x := range []struct {
		name, what, unit string
		from             func(*kubeStore) []float64
	}{
		{"StartReady", "until ready", "ms", func(x *kubeStore) []float64 { return x.ready }},
		{"StartCPU", "CPU of a start", "ms", func(x *kubeStore) []float64 { return x.cpu }},
		{"StartRequests", "requests of a start", "requests", func(x *kubeStore) []float64 { return x.requests }},
		{"StartReceived", "received in a start", "MB", func(x *kubeStore) []float64 { return x.received }},
	} {
		add(x.name, x.what, x.unit, x.from, inEtcd(x.from))
	}
	b.report.note("kube: requests of a start: %v; with etcd %v", own.by, etcd.by)
	if peer != nil {
		b.report.note("kube: requests of a start of the peer: %v", peer.by)
	}
	received := func(x *kubeStore) []float64 { return []float64{x.rest.received / 1000} }
	cpu := func(x *kubeStore) []float64 { return []float64{x.rest.cpu} }
	atRest := func(from func(*kubeStore) []float64) func(*Figure) {
		return func(f *Figure) {
			inEtcd(from)(f)
			atMostOf(from, 5)(f)
		}
	}
	add("RestReceived", "received at rest", "kB/s", received, atRest(received))
	add("RestCPU", "CPU at rest", "ms/s", cpu, atRest(cpu))
	add("RestRequests", fmt.Sprintf("requests in %s at rest", b.KubeRest), "requests",
		func(x *kubeStore) []float64 { return []float64{x.rest.requests} }, nil)
	peak := func(x *kubeStore) []float64 { return []float64{x.rest.memory.Peak / 1e6} }
	resident := func(x *kubeStore) []float64 { return []float64{x.rest.memory.Resident / 1e6} }
	anon := func(x *kubeStore) []float64 { return []float64{x.rest.memory.Anon / 1e6} }
	add("MemoryPeak", "peak memory", "MB", peak, inEtcd(peak))
	add("MemoryRest", "memory at rest", "MB", resident, func(f *Figure) {
		inEtcd(resident)(f)
		f.Limit = atMost(36)
		if half := atMostOf(resident, 2); peer != nil && median(resident(peer))/2 < 36 {
			half(f)
		}
	})
	add("MemoryRestAnon", "of it, heap and stacks (RssAnon)", "MB", anon, inEtcd(anon))
	for _, q := range []struct {
		name, words string
		p, limit    float64
	}{{"AddedHalf", "p50", 0.5, 5}, {"AddedMost", "p99", 0.99, 20}} {
		added := func(x *kubeStore) []float64 { return []float64{quantile(q.p, x.rest.added)} }
		what := "one added, API server's answer to kernel, " + q.words
		add(q.name, what, "ms", added, func(f *Figure) {
			f.Limit, f.Floor = atMost(q.limit), &Reference{What: "a bare watch", Value: quantile(q.p, own.rest.heard)}
		})
	}
	var size [2]float64 // MB
	for i, x := range []*kubeStore{own, peer} {
		if x == nil {
			continue
		}
		info, err := os.Stat(x.path)
		if err != nil {
			return err
		}
		size[i] = float64(info.Size()) / 1e6
	}
	b.report.add(Figure{
		Name: "KubeBinary", What: "the daemon's binary, with all stores", Unit: "MB", Value: size[0], Limit: atMost(30),
	})
	if peer != nil {
		b.report.peer("KubeBinary", "peer", nil, size[1])
	}
	return nil
}
