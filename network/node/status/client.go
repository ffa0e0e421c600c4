package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// ErrNotRunning is returned if no process listens on the socket.
var ErrNotRunning = errors.New("selvaged does not run here")

// errNoPath is the error for a path that the daemon does not know.
var errNoPath = errors.New("this version does not answer")

// Client queries a daemon. Create one with [NewClient].
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the daemon that listens on a socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status returns the state of the node.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.get(ctx, PathStatus, &s)
	if s.Store.Kind == "" && s.Etcd != nil { // an earlier version's daemon
		s.Store = Store{Kind: KindEtcd, StoreConnection: *s.Etcd}
	}
	return s, err
}

// Peers returns the other nodes' leases, in the order of their subnets.
func (c *Client) Peers(ctx context.Context) (p []Peer, err error) {
	return p, c.get(ctx, PathPeers, &p)
}

// Explain returns how the node reaches an address.
func (c *Client) Explain(ctx context.Context, a netip.Addr) (e Explanation, err error) {
	return e, c.get(ctx, PathExplain+"?address="+url.QueryEscape(a.String()), &e)
}

// RotateKey has the node change the key by which peers know it, see [Rotation]. With force, it does not wait for peers
// that do not answer. The error is a [QueryError] if the node cannot do that now.
func (c *Client) RotateKey(ctx context.Context, force bool) (r Rotation, err error) {
	target := PathRotateKey
	if force {
		target += "?force=true"
	}
	absent := fmt.Errorf("%w: %s", errNoPath, target)
	return r, c.request(ctx, http.MethodPost, target, absent, decodeInto(&r))
}

// maxAnswer limits the size of an answer, in bytes: 20,000 peers take 8 MB.
const maxAnswer = 64 << 20

// get queries the daemon for one value.
func (c *Client) get(ctx context.Context, target string, into any) error {
	return c.query(ctx, target, fmt.Errorf("%w: %s", errNoPath, target), decodeInto(into))
}

// decodeInto returns what reads an answer of one value.
func decodeInto(into any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(into) }
}

// query queries the daemon: target is a path with its query. read reads the answer; absent is the error if the daemon
// does not know the path.
func (c *Client) query(ctx context.Context, target string, absent error, read func(io.Reader) error) error {
	return c.request(ctx, http.MethodGet, target, absent, read)
}

// request is query with another method.
func (c *Client) request(
	ctx context.Context, method, target string, absent error, read func(io.Reader) error,
) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://selvaged"+target, nil)
	if err != nil {
		return fmt.Errorf("ask selvaged: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		if err := read(response.Body); err != nil {
			return fmt.Errorf("read the answer of selvaged at %s: %w", c.socket, err)
		}
		return nil
	case http.StatusNotFound:
		return fmt.Errorf("selvaged at %s: %w", c.socket, absent)
	}
	const longest = 64 << 10
	body, err := io.ReadAll(io.LimitReader(response.Body, longest))
	if err != nil {
		return fmt.Errorf("ask selvaged at %s: %w", c.socket, err)
	}
	text := strings.TrimSpace(string(body))
	if response.StatusCode == http.StatusBadRequest {
		return QueryError{errors.New(text)}
	}
	return fmt.Errorf("selvaged at %s answers %s: %s", c.socket, response.Status, text)
}

// explain turns an error of the socket into advice.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: no process listens on %s; start it, or name its --socket", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w; run as root", c.socket, fs.ErrPermission)
	default:
		return fmt.Errorf("ask selvaged at %s: %w", c.socket, err)
	}
}
