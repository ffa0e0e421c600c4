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

// maxAnswer limits the size of an answer, in bytes: 20,000 peers take 8 MB.
const maxAnswer = 64 << 20

func (c *Client) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://selvaged"+path, nil)
	if err != nil {
		return fmt.Errorf("ask selvaged: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask selvaged at %s: %w", c.socket, err)
	}
	if response.StatusCode == http.StatusNotFound {
		return fmt.Errorf("selvaged at %s: %w: %s", c.socket, errNoPath, path)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("selvaged at %s answers %s: %s", c.socket, response.Status, strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("selvaged at %s sent an invalid answer: %w", c.socket, err)
	}
	return nil
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
