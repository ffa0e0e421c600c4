package etcd

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/subnet"
)

// BenchmarkSnapshot lists leases from a real etcd, with what the client of it allocates.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			o := Options{Endpoints: []string{shared.server.Endpoint()}, Prefix: fmt.Sprintf("/bench/%d", n)}
			etcd, err := clientv3.New(clientv3.Config{Endpoints: o.Endpoints, Logger: zap.NewNop()})
			if err != nil {
				b.Fatal(err)
			}
			defer etcd.Close()
			value, _ := lease(1, "d5f1c4b2a6e84f0c").Value()
			for i := 0; i < n; i += 100 {
				var ops []clientv3.Op
				for j := range 100 {
					ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/subnets/10.%d.%d.0-24", o.Prefix, (i+j)/256, (i+j)%256), string(value)))
				}
				if _, err := etcd.Txn(b.Context()).Then(ops...).Commit(); err != nil {
					b.Fatal(err)
				}
			}
			s, err := New(o)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				seen := 0
				err := s.Watch(ctx, func(e subnet.Event) error {
					seen += len(e.Put)
					if e.Type == subnet.Synced {
						cancel()
					}
					return nil
				})
				if err != nil || seen != n {
					b.Fatalf("%d leases of %d: %v", seen, n, err)
				}
				cancel()
			}
		})
	}
}
