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
	x := store.Examine(ctx)
	r.CertificateEnds, r.Commands = x.CertificateEnds, x.Rights.Commands
	r.RightsCode, r.Rights = problemOf(x.Rights)
	for _, e := range x.Endpoints {
		one := status.EtcdEndpoint{
			URL: e.URL, Version: e.Version, Latency: e.Latency, Leader: e.Leader, Learner: e.Learner,
			CertificateEnds: e.CertificateEnds, ClockAhead: e.ClockAhead,
		}
		one.Code, one.Error = problemOf(e.Problem)
		for _, a := range e.Alarms {
			code, text := problemOf(a)
			one.Alarms, one.Problems = append(one.Alarms, status.EtcdAlarm{Code: code, Text: text}),
				append(one.Problems, text)
		}
		r.Endpoints = append(r.Endpoints, one)
	}
	return r, nil
}

// problemOf returns a problem of the store as the status has it; nothing if there is none.
func problemOf(p subnet.Problem) (status.Reason, status.Text) {
	if p.Err == nil {
		return "", ""
	}
	return status.Reason(p.Reason), status.Text(p.Err.Error())
}
