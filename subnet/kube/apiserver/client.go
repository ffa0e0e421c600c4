package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/selvage-net/selvage/subnet"
)

// Client speaks to an API server. It is safe for concurrent use. Make one with [New].
//
// A request that the server rejects because it is overloaded (429, or 5xx with Retry-After) is sent again within its
// time, after the time that the server names. A request whose token the server rejects is sent again at once if the
// token's file holds another one. All other failures are the caller's, which has a backoff; see [RetryAfter].
type Client struct {
	opts        Options
	config      config
	vault       *vault
	transport   *http.Transport
	connections *connections
	meter       *meter
	decoder     decoder

	mu    sync.Mutex
	shown []byte // the certificates of the connections, see credentials.raw; nil: no request was sent
}

// New returns a client. It sends no request yet. The errors are about the options: they name the file, and what is
// wrong with it.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, connections: newConnections(), meter: newMeter(), decoder: newDecoder(o.Annotations)}
	if c.config, err = o.config(); err != nil {
		return nil, err
	}
	if c.vault, err = newVault(o.Kubeconfig, c.config); err != nil {
		return nil, err
	}
	if c.config.insecure {
		o.Log.Warnf("the certificate of the API server is not checked: insecure-skip-tls-verify is set in %s",
			o.Kubeconfig)
	}
	c.transport = c.newTransport()
	return c, nil
}

// newTransport returns one with connections of its own.
func (c *Client) newTransport() *http.Transport {
	proxy := http.ProxyFromEnvironment
	if c.config.proxy != nil {
		proxy = http.ProxyURL(c.config.proxy)
	}
	return &http.Transport{
		DialContext:         c.connections.dial,
		Proxy:               proxy,
		TLSClientConfig:     c.vault.tls(c.config),
		TLSHandshakeTimeout: handshakeTimeout,
		ForceAttemptHTTP2:   true, // else a transport with its own dialer has none
		DisableCompression:  true,
		// A reader that falls behind makes the server wait, in the place of megabytes here.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: c.opts.pingAfter, PingTimeout: c.opts.pingTimeout,
			MaxReceiveBufferPerStream: 512 << 10, MaxReceiveBufferPerConnection: 2 << 20,
		},
	}
}

// Close closes the connections. End requests and watches first.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	c.connections.closeAll()
	return nil
}

// path returns the path of a resource's objects, of one of them, or of a subresource of one.
func (r Resource) path(more ...string) string {
	path := "/api/" + r.Version
	if r.Group != "" {
		path = "/apis/" + r.Group + "/" + r.Version
	}
	if r.Namespace != "" {
		path += "/namespaces/" + url.PathEscape(r.Namespace)
	}
	path += "/" + r.Name
	for _, m := range more {
		path += "/" + url.PathEscape(m)
	}
	return path
}

// Node reads one Node. The error is [ErrNotFound] if there is none.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	return c.node(ctx, request{verb: "GET", method: http.MethodGet, path: Nodes.path(name)})
}

// PatchNodeStatus changes a Node by PATCH nodes/NAME/status with a strategic merge patch (JSON), and returns the Node
// as it is then. Changes to annotations, labels and the status have an effect; those to the spec are dropped. A patch
// with metadata.resourceVersion fails with [ErrConflict] if the Node has another one.
func (c *Client) PatchNodeStatus(ctx context.Context, name string, patch []byte) (Node, error) {
	return c.node(ctx, request{
		verb: "PATCH", method: http.MethodPatch, path: Nodes.path(name, "status"),
		body: patch, sends: "application/strategic-merge-patch+json",
	})
}

// node sends a request that is answered with a Node.
func (c *Client) node(ctx context.Context, r request) (Node, error) {
	m, err := c.object(ctx, r, "Node")
	if err != nil {
		return Node{}, err
	}
	n := c.decoder.node(m)
	if n.Bad != nil {
		return n, fmt.Errorf("%s %s: %w", r.method, r.path, n.Bad)
	}
	return n, nil
}

// object sends a request that is answered with an object of a kind.
func (c *Client) object(ctx context.Context, r request, kind string) (message, error) {
	r.accept = protobuf
	body, err := c.small(ctx, r)
	if err != nil {
		return message{}, err
	}
	got, raw, err := unknown(body, false)
	if err == nil && got != kind {
		err = fmt.Errorf("%w: an object of kind %q, want %s", ErrMalformed, got, kind)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	return raw, err
}

// PodNode returns spec.nodeName of a Pod: the name of the Node on which it runs; empty: it is not scheduled.
func (c *Client) PodNode(ctx context.Context, namespace, pod string) (string, error) {
	path := Resource{Version: "v1", Name: "pods", Namespace: namespace}.path(pod)
	raw, err := c.object(ctx, request{verb: "GET", method: http.MethodGet, path: path}, "Pod")
	if err != nil {
		return "", err
	}
	return podNode(raw)
}

// Right is something that a user may be allowed to do.
type Right struct {
	Verb        string // such as "get" or "patch"
	Resource    Resource
	Subresource string // such as "status"; empty: none
	Object      string // the object's name; empty: all
}

// String returns what a ClusterRole would grant, such as "patch on nodes/status".
func (r Right) String() string {
	text := r.Verb + " on " + r.Resource.Name
	if r.Subresource != "" {
		text += "/" + r.Subresource
	}
	if r.Resource.Group != "" {
		text += " of " + r.Resource.Group
	}
	return text
}

// Allowed asks whether this client may do something (SelfSubjectAccessReview). why is the server's explanation, for
// people; often empty.
func (c *Client) Allowed(ctx context.Context, r Right) (allowed bool, why string, err error) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Attributes map[string]string `json:"resourceAttributes"`
		} `json:"spec"`
		Status struct {
			Allowed         bool   `json:"allowed"`
			Reason          string `json:"reason"`
			EvaluationError string `json:"evaluationError"`
		} `json:"status"`
	}
	const group = "authorization.k8s.io/v1"
	review.APIVersion, review.Kind = group, "SelfSubjectAccessReview"
	review.Spec.Attributes = map[string]string{}
	for name, value := range map[string]string{
		"verb": r.Verb, "group": r.Resource.Group, "version": r.Resource.Version, "resource": r.Resource.Name,
		"namespace": r.Resource.Namespace, "subresource": r.Subresource, "name": r.Object,
	} {
		if value != "" {
			review.Spec.Attributes[name] = value
		}
	}
	body, err := json.Marshal(review)
	if err != nil {
		return false, "", err
	}
	path := "/apis/" + group + "/selfsubjectaccessreviews"
	body, err = c.small(ctx, request{
		verb: "POST", method: http.MethodPost, path: path, accept: jsonType, body: body, sends: jsonType,
	})
	if err != nil {
		return false, "", err
	}
	if err := json.Unmarshal(body, &review); err != nil {
		return false, "", fmt.Errorf("%w: POST %s: %w", ErrMalformed, path, err)
	}
	return review.Status.Allowed, shorten(review.Status.Reason + " " + review.Status.EvaluationError), nil
}

// Access says where the server is and which files hold the credentials. It holds no secret. Prefix is not set.
func (c *Client) Access() subnet.Access {
	u := c.config.user
	return subnet.Access{
		Kind: subnet.StoreKubernetes, Endpoints: []string{c.config.url.String()},
		CAFile: c.config.caFile, CertFile: u.certFile, KeyFile: u.keyFile,
	}
}
