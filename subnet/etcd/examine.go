package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/selvage-net/selvage/subnet"
)

// Examine implements [subnet.Examiner].
func (s *Store) Examine(ctx context.Context) subnet.Examination {
	x := subnet.Examination{
		Endpoints:       make([]subnet.EndpointReport, len(s.opts.Endpoints)),
		CertificateEnds: s.opts.certificateEnds(),
	}
	var asking sync.WaitGroup
	for i, url := range s.opts.Endpoints {
		asking.Go(func() { x.Endpoints[i] = s.examine(ctx, url) })
	}
	asking.Go(func() { x.Rights = problemOf(s.examineRights(ctx)) })
	asking.Wait()
	return x
}

// examine asks one endpoint, on a connection of its own.
func (s *Store) examine(ctx context.Context, url string) subnet.EndpointReport {
	e := subnet.EndpointReport{URL: url}
	o := s.opts
	o.Endpoints = []string{url} // for what an error names
	conn, err := s.client.Dial(url)
	if err != nil {
		e.Problem = problemOf(o.explain(err))
		return e
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, s.opts.RequestTimeout)
	defer cancel()
	ask := func() (answer *pb.StatusResponse, from peer.Peer, err error) {
		answer, err = pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}, grpc.Peer(&from))
		return answer, from, err
	}
	if _, _, err = ask(); err != nil { // this one makes the connection
		e.Problem = problemOf(o.explain(err))
		return e
	}
	began := time.Now()
	answer, from, err := ask()
	if err != nil {
		e.Problem = problemOf(o.explain(err))
		return e
	}
	e.Latency = time.Since(began)
	e.Version, e.Learner = answer.Version, answer.IsLearner
	for _, text := range answer.Errors {
		e.Alarms = append(e.Alarms, alarm(text))
	}
	e.Leader = answer.Leader != 0 && answer.Leader == answer.Header.GetMemberId()
	if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		e.CertificateEnds = info.State.PeerCertificates[0].NotAfter
	}
	e.ClockAhead = s.clockAhead(ctx, url)
	return e
}

// alarm returns what a member reports of itself: "memberID:123 alarm:NOSPACE ", or the text of one of etcd's errors
// (etcd, server/etcdserver/api/v3rpc/maintenance.go, Status).
func alarm(text string) subnet.Problem {
	p := subnet.Problem{Reason: subnet.ReasonOther, Err: errors.New(text)}
	switch {
	case strings.Contains(text, "alarm:"+pb.AlarmType_NOSPACE.String()):
		p.Reason, p.Commands = subnet.ReasonNoSpace, [][]string{{"etcdctl", "alarm", "disarm"}}
	case strings.Contains(text, "alarm:"+pb.AlarmType_CORRUPT.String()):
		p.Reason = subnet.ReasonCorrupt
	case text == rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader), text == "etcdserver: no leader":
		p.Reason = subnet.ReasonNoLeader
	}
	return p
}

// examineRights says why the node cannot do what it has to, or nil.
func (s *Store) examineRights(ctx context.Context) error {
	asked, cancel := s.deadline(ctx)
	defer cancel()
	if _, err := s.client.Get(asked, s.keys.config, clientv3.WithKeysOnly()); err != nil {
		return s.explain(ctx, err)
	}
	if missing := s.missingRights(ctx); len(missing) > 0 {
		return s.opts.lacks(missing, rpctypes.ErrPermissionDenied)
	}
	return nil
}

// certificateEnds is when the client certificate ends.
func (o Options) certificateEnds() (end time.Time) {
	if o.CertFile == "" {
		return end
	}
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil || pair.Leaf == nil {
		return end // the endpoints say so as well
	}
	return pair.Leaf.NotAfter
}
