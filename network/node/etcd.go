package node

import (
	"context"
	"errors"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// Etcd implements api.Source. It takes as long as etcd does, so the loop has no part in it.
func (n *node) Etcd(ctx context.Context) (r status.EtcdReport, err error) {
	store, ok := n.Store.(interface {
		Examine(context.Context) etcd.Examination
	})
	if !ok {
		return r, errors.New("the lease store is not etcd")
	}
	x := store.Examine(ctx)
	r.CertificateEnds = x.CertificateEnds
	if x.Rights != nil {
		r.Rights = x.Rights.Error()
	}
	for _, e := range x.Endpoints {
		one := status.EtcdEndpoint{
			URL: e.URL, Version: e.Version, Latency: e.Latency, Leader: e.Leader, Learner: e.Learner, Problems: e.Problems,
			CertificateEnds: e.CertificateEnds, ClockAhead: e.ClockAhead,
		}
		if e.Err != nil {
			one.Error = e.Err.Error()
		}
		r.Endpoints = append(r.Endpoints, one)
	}
	return r, nil
}
