package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// gateLimits bound what tokens can make a server do. A token that was accepted costs a review every so often; for any
// other, the reviews are few, whoever shows them.
type gateLimits struct {
	accepted time.Duration // how long a review counts that accepted a token
	refused  time.Duration // and one that did not
	retry    time.Duration // when the API server has not answered
	timeout  time.Duration // of a review
	parallel int           // reviews at the same time
	all      limits        // every and burst: of reviews of tokens that were not accepted before
	source   limits        // the same of one address
	most     int           // tokens and addresses that are remembered
}

// daemonGate: the page of selvaged mesh and the commands on a few nodes have a token each, which is another one after
// 48 minutes. A review counts as long as the kubelet's do by default (KubeletConfiguration,
// authentication.webhook.cacheTTL). Strangers who show forged tokens to all of 1,000 nodes cause 200 reviews a second
// at most, and from one address 33.
var daemonGate = gateLimits{
	accepted: 2 * time.Minute, refused: 30 * time.Second, retry: 10 * time.Second,
	timeout: 2 * time.Second, parallel: 2, most: 256,
	all: limits{every: 5 * time.Second, burst: 8}, source: limits{every: 30 * time.Second, burst: 3},
}

// gate decides whose requests are answered, by the tokens that they show. Its methods are safe for concurrent use, and
// it has no part in the daemon's loop.
type gate struct {
	limits  gateLimits
	review  Reviewer
	users   map[string]bool
	now     func() time.Time
	running chan struct{} // has a value for each review that runs

	mu      sync.Mutex
	known   map[[sha256.Size]byte]*verdict // by the token's hash; no token is kept
	rate    pacer
	sources map[netip.Addr]*pacer
}

// verdict is what is known of a token.
type verdict struct {
	accepted bool
	refused  *refusal      // why it is not accepted
	until    time.Time     // the review counts
	ends     time.Time     // the token's end, as the review has confirmed; zero: none
	pending  chan struct{} // closed at the end of the review that runs; nil: none runs
}

// refusal is why a request is not answered.
type refusal struct {
	code int    // HTTP status
	why  string // for the log
}

func newGate(t Tokens, l gateLimits) *gate {
	g := &gate{
		limits: l, review: t.Review, users: map[string]bool{}, now: time.Now, running: make(chan struct{}, l.parallel),
		known: map[[sha256.Size]byte]*verdict{}, sources: map[netip.Addr]*pacer{},
	}
	for _, a := range t.Accounts {
		g.users[a.user()] = true
	}
	return g
}

// admit decides on a request from an address that shows a token; nil: it is answered.
func (g *gate) admit(ctx context.Context, from netip.Addr, token string) *refusal {
	if token == "" {
		return &refusal{http.StatusUnauthorized, "it shows no token"}
	}
	says, ok := claimsOf(token)
	if !ok {
		return &refusal{http.StatusUnauthorized, "it is no token of a ServiceAccount for the audience " + Audience}
	}
	if !g.users[says.user] {
		return &refusal{http.StatusForbidden, "the account that it names is not one of --mesh-token-accounts"}
	}
	hash := sha256.Sum256([]byte(token))
	for {
		v, wait, refused := g.look(hash, from)
		switch {
		case refused != nil || v == nil && wait == nil:
			return refused
		case v != nil:
			return g.examine(ctx, hash, v, token, says)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return &refusal{http.StatusBadGateway, "the API server has not reviewed it in time"}
		}
	}
}

// look returns what is known of a token: that it is accepted (nothing), why it is not, that its review is to be
// waited for, or v, by which the caller reviews it.
func (g *gate) look(hash [sha256.Size]byte, from netip.Addr) (v *verdict, wait <-chan struct{}, why *refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	v = g.known[hash]
	switch {
	case v == nil:
	case v.pending != nil:
		return nil, v.pending, nil
	case now.Before(v.until) && v.accepted:
		return nil, nil, nil
	case now.Before(v.until):
		return nil, nil, v.refused
	}
	if v == nil || !v.accepted { // a token that was accepted before does not wait behind those of strangers
		if !g.spend(from, now) {
			return nil, nil, &refusal{http.StatusTooManyRequests, "too many tokens to be reviewed"}
		}
	}
	if v == nil {
		v = &verdict{}
		g.makeRoom(now)
		g.known[hash] = v
	}
	v.pending = make(chan struct{})
	return v, nil, nil
}

// spend reports whether a token of an address that was not accepted before may be reviewed now, and counts it.
func (g *gate) spend(from netip.Addr, now time.Time) bool {
	s := g.sources[from]
	if s == nil {
		if len(g.sources) >= g.limits.most {
			for a, p := range g.sources {
				if !now.Before(p.due) {
					delete(g.sources, a)
				}
			}
		}
		if len(g.sources) >= g.limits.most {
			return false // more addresses than can have been reviewed since: see the limit of all
		}
		s = &pacer{}
	}
	if !s.allows(g.limits.source, now) || !g.rate.allows(g.limits.all, now) {
		return false
	}
	s.wait(g.limits.source, now)
	g.rate.wait(g.limits.all, now)
	g.sources[from] = s
	return true
}

// allows reports whether the next one is due now.
func (p pacer) allows(l limits, now time.Time) bool { return p.wait(l, now) == 0 }

// makeRoom forgets tokens. Those that were accepted go last.
func (g *gate) makeRoom(now time.Time) {
	if len(g.known) < g.limits.most {
		return
	}
	for hash, v := range g.known {
		if v.pending == nil && (!v.accepted || !v.ends.IsZero() && !now.Before(v.ends)) {
			delete(g.known, hash)
		}
	}
	for hash, v := range g.known {
		if len(g.known) < g.limits.most {
			return
		}
		if v.pending == nil {
			delete(g.known, hash)
		}
	}
}

// examine has a token reviewed, and notes the verdict.
func (g *gate) examine(ctx context.Context, hash [sha256.Size]byte, v *verdict, token string, says claims) *refusal {
	user, why, err := g.ask(ctx, token)
	g.mu.Lock()
	defer g.mu.Unlock()
	close(v.pending)
	v.pending = nil
	now := g.now()
	switch {
	case err != nil && v.accepted && now.Before(v.ends):
		// While the API server does not answer, the view of the cluster is needed most. The token was accepted, and has
		// not ended.
		v.until = now.Add(g.limits.retry)
		return nil
	case err != nil:
		delete(g.known, hash)
		return &refusal{http.StatusBadGateway, fmt.Sprintf("the API server has not reviewed it: %v", err)}
	case why != "":
		return v.refuse(&refusal{http.StatusUnauthorized, "the API server does not accept it: " + why},
			now.Add(g.limits.refused))
	case !g.users[user]: // whatever the token says
		return v.refuse(&refusal{http.StatusForbidden, "it is a token of " + user}, now.Add(g.limits.refused))
	}
	v.accepted, v.refused, v.ends = true, nil, says.ends
	v.until = now.Add(g.limits.accepted)
	if !v.ends.IsZero() && v.ends.Before(v.until) {
		v.until = later(v.ends, now.Add(g.limits.retry)) // by this node's clock, which may be ahead
	}
	return nil
}

// refuse notes why a token is not accepted, and returns that.
func (v *verdict) refuse(why *refusal, until time.Time) *refusal {
	v.accepted, v.refused, v.until = false, why, until
	return why
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

var errBusy = errors.New("other reviews take too long")

// ask asks the API server. The review goes on for its time if the client disconnects: others may wait for it.
func (g *gate) ask(ctx context.Context, token string) (user, why string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.limits.timeout)
	defer cancel()
	select {
	case g.running <- struct{}{}:
		defer func() { <-g.running }()
	case <-ctx.Done():
		return "", "", errBusy
	}
	return g.review(ctx, token)
}
