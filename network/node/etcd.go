package node

import (
	"context"
	"errors"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Etcd implements api.Source. It takes as long as the store does, so the loop has no part in it.
func (n *node) Etcd(ctx context.Context) (r status.EtcdReport, err error) {
	store, ok := n.Store.(subnet.Examiner)
	if !ok {
		return r, errors.New("this lease store cannot be examined")
	}
	text := func(p subnet.Problem) string {
		if p.Err == nil {
			return ""
		}
		return p.Err.Error()
	}
	x := store.Examine(ctx)
	r.CertificateEnds, r.Rights = x.CertificateEnds, text(x.Rights)
	for _, e := range x.Endpoints {
		one := status.EtcdEndpoint{
			URL: e.URL, Error: text(e.Problem), Version: e.Version, Latency: e.Latency, Leader: e.Leader, Learner: e.Learner,
			CertificateEnds: e.CertificateEnds, ClockAhead: e.ClockAhead,
		}
		for _, alarm := range e.Alarms {
			one.Problems = append(one.Problems, text(alarm))
		}
		r.Endpoints = append(r.Endpoints, one)
	}
	return r, nil
}
