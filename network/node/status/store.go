package status

import (
	"context"
	"errors"
	"time"
)

// PathStore is the path of a [StoreReport]. Unlike for the other paths, the daemon queries the store to answer it.
// PathEtcd, its name before there were other stores, gives the same answer.
const (
	PathStore = "/v1/store"
	PathEtcd  = "/v1/etcd"
)

// KindEtcd and KindKubernetes are kinds of a [Store].
const (
	KindEtcd       = "etcd"
	KindKubernetes = "kubernetes"
)

// Store describes the lease store: which it is, and the daemon's connection to it.
type Store struct {
	Kind string `json:"kind"`
	StoreConnection
	Unread   int `json:"unread_leases,omitempty"`   // that cannot be read: see [LeasesUnread]
	Disputed int `json:"disputed_leases,omitempty"` // that are still to be verified: see [LeasesDisputed]
}

// StoreConnection describes the daemon's connection to its store.
type StoreConnection struct {
	Endpoint    string            `json:"endpoint,omitempty"` // of the connection in use
	Revision    int64             `json:"revision"`           // up to which the node has seen all changes
	Latency     time.Duration     `json:"latency_ns"`         // of the latest request
	LastContact time.Time         `json:"last_contact"`
	LastEvent   time.Time         `json:"last_event,omitzero"` // when the watch last gave a sign of life; zero: unknown
	Requests    map[string]uint64 `json:"requests,omitempty"`  // since the start, by method
	Failed      map[string]uint64 `json:"failed,omitempty"`
	Sent        uint64            `json:"sent_bytes"`
	Received    uint64            `json:"received_bytes"`
	Outage      *Problem          `json:"outage,omitempty"`
	Access      *StoreAccess      `json:"access,omitempty"`
}

// StoreAccess describes how the daemon connects to its store, without secrets.
type StoreAccess struct {
	Endpoints    []string `json:"endpoints"`
	Prefix       string   `json:"prefix"`           // of etcd's keys, or of the Nodes' annotations
	Config       string   `json:"config,omitempty"` // etcd's key or the file that has the network config
	CAFile       string   `json:"ca_file,omitempty"`
	CertFile     string   `json:"cert_file,omitempty"`
	KeyFile      string   `json:"key_file,omitempty"`
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"`
	TokenFile    string   `json:"token_file,omitempty"`
	Kubeconfig   string   `json:"kubeconfig,omitempty"`
	Node         string   `json:"node,omitempty"` // this node's Node in Kubernetes
}

// StoreReport describes the store as the daemon's client sees it now. Its reasons are those of package subnet, such as
// "forbidden".
type StoreReport struct {
	Endpoints []StoreEndpoint `json:"endpoints"`
	// Rights is why the daemon lacks access to what it needs in the store, and what to do; empty: it has access.
	Rights     Text   `json:"rights,omitempty"`
	RightsCode Reason `json:"rights_code,omitempty"`
	// Commands grant the missing rights: a program and its arguments each, without the options that say where the store
	// is. For etcd, they grant them to a role named ROLE.
	Commands [][]string `json:"commands,omitempty"`
	// CertificateEnds is when the daemon's own certificate expires.
	CertificateEnds time.Time `json:"certificate_ends,omitzero"`
}

// StoreEndpoint is one of the store's endpoints.
type StoreEndpoint struct {
	URL             string        `json:"url"`
	Error           Text          `json:"error,omitempty"` // why it cannot be used; the other fields are empty then
	Code            Reason        `json:"code,omitempty"`  // of Error
	Version         string        `json:"version,omitempty"`
	Latency         time.Duration `json:"latency_ns,omitempty"`
	Leader          bool          `json:"leader,omitempty"`
	Learner         bool          `json:"learner,omitempty"`
	Problems        []Text        `json:"problems,omitempty"` // a text for each of Alarms
	Alarms          []StoreAlarm  `json:"alarms,omitempty"`   // what the endpoint reports: alarms, no leader
	CertificateEnds time.Time     `json:"certificate_ends,omitzero"`
	// ClockAhead is how far its clock is ahead of this node's, to a second; nil: unknown.
	ClockAhead *time.Duration `json:"clock_ahead_ns,omitempty"`
}

// StoreAlarm is a problem that an endpoint of the store reports.
type StoreAlarm struct {
	Code Reason `json:"code"`
	Text Text   `json:"text"`
}

// SetStore sets the fields that describe the store.
func (s *Status) SetStore(x Store) {
	s.Store, s.Etcd = x, nil
	if x.Kind == KindEtcd {
		s.Etcd = &x.StoreConnection
	}
}

// Store returns the state of the store. The daemon queries the store for it.
func (c *Client) Store(ctx context.Context) (r StoreReport, err error) {
	if err = c.get(ctx, PathStore, &r); errors.Is(err, errNoPath) { // an earlier version's daemon
		err = c.get(ctx, PathEtcd, &r)
	}
	return r, err
}
