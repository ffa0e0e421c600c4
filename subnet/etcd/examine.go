package etcd

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Examination is how etcd is, as this store's own client meets it, for a diagnosis.
type Examination struct {
	Endpoints []Endpoint // in the order of the options
	// Rights is why the node cannot have what it needs of etcd: who it says it is, or what that user may do. nil: it can.
	Rights error
	// CertificateEnds is when our own certificate ends; zero: we show none, or its file cannot be read.
	CertificateEnds time.Time
}

// Endpoint is one of etcd's endpoints.
type Endpoint struct {
	URL             string
	Err             error // it cannot be used, with what to do; the rest is not known then
	Version         string
	Latency         time.Duration // of one request, on a connection that was made before
	Leader, Learner bool
	Problems        []string       // what the member says of itself: alarms, no leader
	CertificateEnds time.Time      // zero: it is not spoken to over TLS
	ClockAhead      *time.Duration // of its clock, of ours; nil: it does not tell, see clockAhead
}

// Examine asks each endpoint by itself, and for the rights to all that a node does. It changes nothing. What has not answered
// when ctx ends counts as failed.
func (s *Store) Examine(ctx context.Context) Examination {
	x := Examination{Endpoints: make([]Endpoint, len(s.opts.Endpoints)), CertificateEnds: s.opts.certificateEnds()}
	var asking sync.WaitGroup
	for i, url := range s.opts.Endpoints {
		asking.Go(func() { x.Endpoints[i] = s.examine(ctx, url) })
	}
	asking.Go(func() { x.Rights = s.examineRights(ctx) })
	asking.Wait()
	return x
}

// examine asks one endpoint, on a connection of its own.
func (s *Store) examine(ctx context.Context, url string) Endpoint {
	e := Endpoint{URL: url}
	o := s.opts
	o.Endpoints = []string{url} // for what an error names
	conn, err := s.client.Dial(url)
	if err != nil {
		e.Err = o.explain(err)
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
		e.Err = o.explain(err)
		return e
	}
	began := time.Now()
	answer, from, err := ask()
	if err != nil {
		e.Err = o.explain(err)
		return e
	}
	e.Latency = time.Since(began)
	e.Version, e.Learner, e.Problems = answer.Version, answer.IsLearner, answer.Errors
	e.Leader = answer.Leader != 0 && answer.Leader == answer.Header.GetMemberId()
	if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		e.CertificateEnds = info.State.PeerCertificates[0].NotAfter
	}
	e.ClockAhead = s.clockAhead(ctx, url)
	return e
}

// examineRights says why the node cannot do what it has to, or nil.
func (s *Store) examineRights(ctx context.Context) error {
	asked, cancel := s.deadline(ctx)
	defer cancel()
	if _, err := s.client.Get(asked, s.keys.config, clientv3.WithKeysOnly()); err != nil {
		return s.explain(ctx, err)
	}
	if missing := s.missingRights(ctx); len(missing) > 0 {
		return &fault{s.opts.lacks(missing), rpctypes.ErrPermissionDenied}
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
