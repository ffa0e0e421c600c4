package exchange

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Audience is that of the tokens by which nodes ask each other in Kubernetes. The API server does not accept such a
// token for requests to itself, so a node that is shown one can do no more with it than ask other nodes.
const Audience = "selvage.io/mesh"

// Tokens say how nodes that ask each other prove who they are in Kubernetes: each shows the token of a ServiceAccount,
// and the node that is asked has the API server review it.
type Tokens struct {
	File     string    // this node's token, which the kubelet renews
	Accounts []Account // whose tokens are accepted
	KeyFile  string    // where this node keeps the private key of its server; it is made if there is none
	Review   Reviewer
}

// Reviewer asks the API server whose a token is, which has to be for [Audience]. It returns the user's name if the
// token is accepted, and else why not. The error means that there is no answer.
type Reviewer func(ctx context.Context, token string) (user, why string, err error)

// Account is a ServiceAccount.
type Account struct{ Namespace, Name string }

// ParseAccount parses "namespace/name".
func ParseAccount(text string) (a Account, err error) {
	var ok bool
	if a.Namespace, a.Name, ok = strings.Cut(text, "/"); !ok || !isName(a.Namespace) || !isName(a.Name) {
		return a, fmt.Errorf("%q, want the namespace and name of a ServiceAccount, such as selvage/selvage", text)
	}
	return a, nil
}

// isName reports whether text can be a name in Kubernetes, as far as it matters here: it has no separator.
func isName(text string) bool {
	const longest = 253
	return text != "" && len(text) <= longest && !strings.ContainsFunc(text, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// user returns the account's name as a user (k8s.io/apiserver, serviceaccount.MakeUsername).
func (a Account) user() string { return "system:serviceaccount:" + a.Namespace + ":" + a.Name }

// maxToken is the size of a token, in bytes. A bound token of a ServiceAccount has about 1,100.
const maxToken = 4 << 10

// readToken reads the token in a file.
func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, odd) {
		return "", fmt.Errorf("token file %s: want one token, and nothing else", path)
	}
	return token, nil
}

// claims are what a token says of itself.
type claims struct {
	user string
	ends time.Time // zero: it does not say
}

// claimsOf reads what a token says of itself, which can be forged: only the API server knows whether it is true.
// ok is false for a token that is none of a ServiceAccount for [Audience], which needs no review.
func claimsOf(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".") // RFC 7519, section 3
	if len(parts) != 3 || len(token) > maxToken {
		return c, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, false
	}
	var body struct {
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		Expires  int64           `json:"exp"`
	}
	if json.Unmarshal(payload, &body) != nil {
		return c, false
	}
	var audiences []string // one is written as it is, or as a list (section 4.1.3)
	if json.Unmarshal(body.Audience, &audiences) != nil {
		audiences = make([]string, 1)
		if json.Unmarshal(body.Audience, &audiences[0]) != nil {
			return c, false
		}
	}
	c.user = body.Subject
	if body.Expires > 0 {
		c.ends = time.Unix(body.Expires, 0)
	}
	return c, slices.Contains(audiences, Audience)
}
