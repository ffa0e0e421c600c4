package status

import (
	"context"
	"time"
)

// PathEtcd is the path of an [EtcdReport]. Unlike the others, the daemon asks etcd for it.
const PathEtcd = "/v1/etcd"

// EtcdReport is how etcd is, asked now by the daemon's own client.
type EtcdReport struct {
	Endpoints []EtcdEndpoint `json:"endpoints"`
	// Rights is why the daemon cannot have what it needs of etcd, and what to do; empty: it can.
	Rights string `json:"rights,omitempty"`
	// CertificateEnds is when the daemon's own certificate ends.
	CertificateEnds time.Time `json:"certificate_ends,omitzero"`
}

// EtcdEndpoint is one of etcd's endpoints.
type EtcdEndpoint struct {
	URL             string        `json:"url"`
	Error           string        `json:"error,omitempty"` // it cannot be used; nothing else is known then
	Version         string        `json:"version,omitempty"`
	Latency         time.Duration `json:"latency_ns,omitempty"`
	Leader          bool          `json:"leader,omitempty"`
	Learner         bool          `json:"learner,omitempty"`
	Problems        []string      `json:"problems,omitempty"` // what the member says of itself: alarms, no leader
	CertificateEnds time.Time     `json:"certificate_ends,omitzero"`
	// ClockAhead is by how much its clock is ahead of this node's, to a second; nil: it does not tell.
	ClockAhead *time.Duration `json:"clock_ahead_ns,omitempty"`
}

// Etcd asks how etcd is, which the daemon then finds out.
func (c *Client) Etcd(ctx context.Context) (r EtcdReport, err error) {
	return r, c.get(ctx, PathEtcd, &r)
}
