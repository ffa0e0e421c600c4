package apiserver

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

var errNotImplemented = errors.New("not implemented")

// Client speaks to an API server. It is safe for concurrent use. Make one with [New].
//
// A request that the server rejects because it is overloaded (429, 5xx) is sent again within its deadline, after the
// time that the server names (Retry-After). A request with a token that the server rejects is sent again at once if
// the token's file holds another one. All other failures are the caller's, which has a backoff.
type Client struct{}

// New returns a client. It sends no request yet. The errors are about the options: they name the file, and what is
// wrong with it.
func New(Options) (*Client, error) { return nil, errNotImplemented }

// Close closes the connections. End requests and watches first.
func (c *Client) Close() error { return errNotImplemented }

// List reads the metadata of all objects of a resource and passes them on in pages. It returns the version of the list.
// It ends with the first error of page.
func (c *Client) List(
	ctx context.Context, r Resource, o ListOptions, page func(Page) error,
) (version int64, err error) {
	return 0, errNotImplemented
}

// Watch reports what happens to the metadata of the objects of a resource. It returns the first error of each, or why
// the watch has ended, never nil: [ErrEnded] after some five to ten minutes, [ErrExpired], or a failure. It does not
// try again.
func (c *Client) Watch(ctx context.Context, r Resource, o WatchOptions, each func(Event) error) error {
	return errNotImplemented
}

// Node reads one Node. The error is [ErrNotFound] if there is none.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	return Node{}, errNotImplemented
}

// Nodes is [Client.List] for whole Nodes. It costs the server and the network five times as much.
func (c *Client) Nodes(ctx context.Context, o ListOptions, page func(NodePage) error) (version int64, err error) {
	return 0, errNotImplemented
}

// PatchNodeStatus changes a Node by PATCH nodes/NAME/status with a strategic merge patch (JSON), and returns the Node
// as it is then. Changes to annotations, labels and the status have an effect; those to the spec are dropped.
func (c *Client) PatchNodeStatus(ctx context.Context, name string, patch []byte) (Node, error) {
	return Node{}, errNotImplemented
}

// PodNode returns spec.nodeName of a Pod: the name of the Node on which it runs; empty: it is not scheduled.
func (c *Client) PodNode(ctx context.Context, namespace, pod string) (string, error) {
	return "", errNotImplemented
}

// Right is something that a user may be allowed to do.
type Right struct {
	Verb        string // such as "get" or "patch"
	Resource    Resource
	Subresource string // such as "status"; empty: none
	Object      string // the object's name; empty: all
}

// Allowed asks whether this client may do something (SelfSubjectAccessReview). why is the server's explanation, for
// people; often empty.
func (c *Client) Allowed(ctx context.Context, r Right) (allowed bool, why string, err error) {
	return false, "", errNotImplemented
}

// Version returns the server's version, such as "v1.34.4". Everyone may ask for it, in most clusters.
func (c *Client) Version(ctx context.Context) (string, error) { return "", errNotImplemented }

// Health returns the state of the connection and counters since New. The names of requests are their methods, and
// "LIST" and "WATCH".
func (c *Client) Health() subnet.Health { return subnet.Health{} }

// Examine asks the server, on a connection of its own, for its version, certificate and clock.
func (c *Client) Examine(ctx context.Context) subnet.EndpointReport { return subnet.EndpointReport{} }

// Access says where the server is and which files hold the credentials. It holds no secret. Prefix is not set.
func (c *Client) Access() subnet.Access { return subnet.Access{} }

// CertificateEnds is the end of our own certificate; zero: none is used, or its file cannot be read.
func (c *Client) CertificateEnds() time.Time { return time.Time{} }

// Addresses returns the addresses of the server, configured or connected to, sorted.
func (c *Client) Addresses() []netip.Addr { return nil }

// AddressesChanged says that this node's own addresses have changed: connections from an address that is gone are
// closed.
func (c *Client) AddressesChanged() {}
