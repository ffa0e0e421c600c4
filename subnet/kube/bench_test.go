package kube

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// benchNodes is a cluster's size.
const benchNodes = 5000

// claimedObjects are Nodes as selvage leaves them.
func claimedObjects(b *testing.B) []apiserver.Object {
	names := namesOf(DefaultPrefix)
	objects := make([]apiserver.Object, benchNodes)
	for i := range objects {
		cidr := fmt.Sprintf("10.%d.%d.0/24", 100+i/256, i%256)
		n := nodeWith(cidr, nil)
		n.Name, n.UID, n.Version = fmt.Sprintf("node-%04d", i), fmt.Sprintf("7f8b1c1e-0000-4000-8000-%012d", i), int64(i+1)
		n.Created = time.Unix(1_700_000_000, 0)
		l := wanted(n.Name)
		l.Endpoints[subnet.IPv4].Subnet = prefix(cidr)
		c, err := names.claimed(l, n)
		if err != nil {
			b.Fatal(err)
		}
		for name, value := range c {
			if value != nil {
				n.Annotations[name] = *value
			}
		}
		objects[i] = n.Object
	}
	return objects
}

// BenchmarkList takes in a list of 5,000 Nodes, and reports what is kept of it.
func BenchmarkList(b *testing.B) {
	objects := claimedObjects(b)
	for b.Loop() {
		w := benchWatcher(b)
		l := newListing()
		for _, o := range objects {
			l.add(w, o)
		}
		l.p.seen = benchNodes
		if err := w.finish(b.Context(), l); err != nil || len(w.nodes) != benchNodes {
			b.Fatal(err)
		}
	}
	w := benchWatcher(b)
	before := heap()
	l := newListing()
	for _, o := range objects {
		l.add(w, o)
	}
	l.p.seen = benchNodes
	if err := w.finish(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	l = nil
	b.ReportMetric(float64(heap()-before)/benchNodes, "kept-B/node")
	runtime.KeepAlive(w)
	runtime.KeepAlive(objects)
}

// BenchmarkKubelet takes in a change of a Node that changes nothing of its lease.
func BenchmarkKubelet(b *testing.B) {
	objects := claimedObjects(b)
	w := benchWatcher(b)
	l := newListing()
	for _, o := range objects {
		l.add(w, o)
	}
	l.p.seen = benchNodes
	if err := w.finish(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	version := int64(benchNodes)
	for b.Loop() {
		version++
		o := objects[version%benchNodes]
		o.Version = version
		var changes batch
		w.note(b.Context(), &apiserver.Event{Type: apiserver.Modified, Version: version, Object: o}, &changes)
		if len(changes.puts) > 0 {
			b.Fatal("a change")
		}
	}
}

func benchWatcher(b *testing.B) *watcher {
	s, err := New(Options{Node: "one", API: apiserver.Options{URL: "http://127.0.0.1:1"}})
	if err != nil {
		b.Fatal(err)
	}
	return &watcher{
		Store: s, conf: newNetConf("/none"), changed: func(subnet.Event) error { return nil },
		nodes: map[string]*knownNode{}, pending: map[string]*pendingNode{},
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
