package status

import (
	"context"
	"time"
)

// PathEtcd is the path of an [EtcdReport]. Unlike for the other paths, the daemon queries etcd to answer it.
const PathEtcd = "/v1/etcd"

// EtcdReport describes etcd as the daemon's client sees it now. Its reasons are those of package subnet, such as
// "forbidden".
type EtcdReport struct {
	Endpoints []EtcdEndpoint `json:"endpoints"`
	// Rights is why the daemon lacks access to what it needs in etcd, and what to do; empty: it has access.
	Rights     Text   `json:"rights,omitempty"`
	RightsCode Reason `json:"rights_code,omitempty"`
	// Commands grant the missing rights to a role, named ROLE: a program and its arguments each, without the options
	// that say where etcd is.
	Commands [][]string `json:"commands,omitempty"`
	// CertificateEnds is when the daemon's own certificate expires.
	CertificateEnds time.Time `json:"certificate_ends,omitzero"`
}

// EtcdEndpoint is one of etcd's endpoints.
type EtcdEndpoint struct {
	URL             string        `json:"url"`
	Error           Text          `json:"error,omitempty"` // why it cannot be used; the other fields are empty then
	Code            Reason        `json:"code,omitempty"`  // of Error
	Version         string        `json:"version,omitempty"`
	Latency         time.Duration `json:"latency_ns,omitempty"`
	Leader          bool          `json:"leader,omitempty"`
	Learner         bool          `json:"learner,omitempty"`
	Problems        []Text        `json:"problems,omitempty"` // a text for each of Alarms
	Alarms          []EtcdAlarm   `json:"alarms,omitempty"`   // what the member reports: alarms, no leader
	CertificateEnds time.Time     `json:"certificate_ends,omitzero"`
	// ClockAhead is how far its clock is ahead of this node's, to a second; nil: unknown.
	ClockAhead *time.Duration `json:"clock_ahead_ns,omitempty"`
}

// EtcdAlarm is a problem that a member of etcd reports.
type EtcdAlarm struct {
	Code Reason `json:"code"`
	Text Text   `json:"text"`
}

// Etcd returns the state of etcd. The daemon queries etcd for it.
func (c *Client) Etcd(ctx context.Context) (r EtcdReport, err error) {
	return r, c.get(ctx, PathEtcd, &r)
}
