package status

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
)

// The paths of network policies on the socket.
const (
	PathPolicies      = "/v1/policies"       // [Policies]
	PathPolicyVerdict = "/v1/policy-verdict" // []PolicyVerdict, of a [PolicyQuery]
	PathDrops         = "/v1/drops"          // a stream of Drop, one a line
)

// ErrNoPolicies is returned if the daemon does not enforce network policies.
var ErrNoPolicies = errors.New("the daemon does not enforce network policies")

// QueryError is the error of a query that is malformed, or names what the daemon does not know. Its text says what.
type QueryError struct{ Err error }

// Error implements error.
func (e QueryError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e QueryError) Unwrap() error { return e.Err }

// PolicyQuery is a connection.
type PolicyQuery struct {
	Source      string // namespace/name of a pod, or an IP address
	Destination string // the same
	Port        string // such as 80, 53/UDP, 8000-8999/TCP, http, TCP or ICMP; empty: any protocol and port
}

// Parameters of PathPolicyVerdict and PathDrops.
const (
	paramSource      = "source"
	paramDestination = "destination"
	paramPort        = "port"
	paramFollow      = "follow"
)

// ParsePolicyQuery reads the parameters of a request for a verdict.
func ParsePolicyQuery(v url.Values) PolicyQuery {
	return PolicyQuery{v.Get(paramSource), v.Get(paramDestination), v.Get(paramPort)}
}

// ParseFollow reads whether a request for drops also wants those to come.
func ParseFollow(v url.Values) bool { return v.Get(paramFollow) == "true" }

// Policies returns the network policies that the node knows.
func (c *Client) Policies(ctx context.Context) (p Policies, err error) {
	return p, c.getPolicy(ctx, PathPolicies, nil, decodeInto(&p))
}

// PolicyVerdict returns what policies decide about a connection, for each family that both ends have.
func (c *Client) PolicyVerdict(ctx context.Context, q PolicyQuery) (all []PolicyVerdict, err error) {
	v := url.Values{paramSource: {q.Source}, paramDestination: {q.Destination}, paramPort: {q.Port}}
	return all, c.getPolicy(ctx, PathPolicyVerdict, v, decodeInto(&all))
}

// Drops calls yield for each of the last few drops, the oldest first; with follow also for those to come, until ctx
// ends or the daemon does. An error of yield ends it.
func (c *Client) Drops(ctx context.Context, follow bool, yield func(Drop) error) error {
	v := url.Values{}
	if follow {
		v.Set(paramFollow, "true")
	}
	return c.getPolicy(ctx, PathDrops, v, func(r io.Reader) error {
		for decoder := json.NewDecoder(r); ; {
			var d Drop
			switch err := decoder.Decode(&d); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			if err := yield(d); err != nil {
				return err
			}
		}
	})
}

// getPolicy queries the daemon about network policies. read reads the answer.
func (c *Client) getPolicy(ctx context.Context, path string, v url.Values, read func(io.Reader) error) error {
	return c.query(ctx, path+"?"+v.Encode(), ErrNoPolicies, read)
}
