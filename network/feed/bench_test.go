package feed

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// benchPods is how many pods other nodes have.
const benchPods = 10000

// nothing takes objects and keeps none.
type nothing struct{}

func (nothing) SetNamespace(policy.Namespace)         {}
func (nothing) DeleteNamespace(string)                {}
func (nothing) SetPod(policy.Pod)                     {}
func (nothing) DeletePod(string)                      {}
func (nothing) SetPolicy(policy.Policy)               {}
func (nothing) DeletePolicy(string, string)           {}
func (nothing) SetClusterPolicy(policy.ClusterPolicy) {}
func (nothing) DeleteClusterPolicy(string)            {}

// benchSink always needs peers.
type benchSink struct {
	objects policy.Objects
	synced  chan bool
}

func (s *benchSink) Update(f func(policy.Objects)) { f(s.objects) }
func (s *benchSink) SetSynced(synced bool) {
	if synced {
		s.synced <- true
	}
}
func (s *benchSink) NeedsPeers() bool              { return true }
func (s *benchSink) PeersChanged() <-chan struct{} { return nil }

// BenchmarkPeers follows 10,000 pods of other nodes: how long until all are known, and what a pod takes in memory, in the
// feed alone and with a compiler.
func BenchmarkPeers(b *testing.B) {
	s := kubetest.New(kubetest.Options{})
	if err := s.Start(); err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	admin := s.Admin()
	for i := range benchPods {
		namespace, node := fmt.Sprint("namespace-", i%100), fmt.Sprint("node-", i%200)
		app := fmt.Sprint("app-", i/100%5)
		address := fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&0xff, i&0xff)
		_, err := admin.Create(b.Context(), "/api/v1/namespaces/"+namespace+"/pods", fields{
			"kind": "Pod", "apiVersion": "v1", "metadata": fields{
				"name":   fmt.Sprintf("%s-7d9c5b8f6d-%05d", app, i),
				"labels": fields{"app": app, "pod-template-hash": "7d9c5b8f6d", "tier": "back"},
			},
			"spec": fields{"nodeName": node, "containers": []any{fields{"name": "c", "ports": []any{
				fields{"name": "http", "containerPort": 8080, "protocol": "TCP"},
			}}}},
			"status": fields{"phase": "Running", "podIP": address,
				"podIPs": []any{fields{"ip": address}, fields{"ip": fmt.Sprintf("fd00::%x", i+1)}}, "startTime": "2026-01-02T03:04:05Z"},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	c, err := apiserver.New(apiserver.Options{URL: s.URL(), ServiceAccount: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for name, objects := range map[string]func() policy.Objects{
		"feed":              func() policy.Objects { return nothing{} },
		"feed and compiler": func() policy.Objects { return policy.NewCompiler(thisNode) },
	} {
		b.Run(name, func(b *testing.B) {
			var each float64
			for b.Loop() {
				b.StopTimer()
				before := heap()
				sink := &benchSink{objects: objects(), synced: make(chan bool, 10)}
				ctx, cancel := context.WithCancel(b.Context())
				ended := make(chan error)
				b.StartTimer()
				log, _ := logger(b)
				go func() { ended <- Kubernetes(ctx, KubernetesOptions{Client: c, Node: thisNode, Sink: sink, Log: log}) }()
				<-sink.synced
				b.StopTimer()
				each = float64(heap()-before) / benchPods
				cancel()
				if err := <-ended; err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(each, "B/pod")
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	for range 3 { // what unique.Make keeps goes late
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
