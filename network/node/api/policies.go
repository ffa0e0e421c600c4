package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/selvage-net/selvage/network/node/status"
)

// Policies answers what network policies do on this node. Several goroutines call its methods.
type Policies interface {
	// Policies returns the policies that the node knows.
	Policies(ctx context.Context) (status.Policies, error)
	// PolicyVerdict returns what they decide about a connection. The error is a status.QueryError if the query is
	// malformed, or names what is not known.
	PolicyVerdict(ctx context.Context, q status.PolicyQuery) ([]status.PolicyVerdict, error)
	// Drops calls yield for each of the last few drops, the oldest first; with follow also for those to come, until ctx
	// ends. It returns the error of yield, or nil.
	Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error
}

// maxFollowers is how many clients may follow the drops.
const maxFollowers = 16

// policyAnswers adds what can be asked about network policies.
func (s *Server) policyAnswers(mux *http.ServeMux) {
	if s.policies == nil {
		return // 404: no policies are enforced
	}
	mux.HandleFunc("GET "+status.PathPolicies, answer(func(ctx context.Context, _ *http.Request) (any, error) {
		return s.policies.Policies(ctx)
	}))
	mux.HandleFunc("GET "+status.PathPolicyVerdict, answer(func(ctx context.Context, r *http.Request) (any, error) {
		return s.policies.PolicyVerdict(ctx, status.ParsePolicyQuery(r.URL.Query()))
	}))
	slots := make(chan struct{}, maxFollowers)
	mux.HandleFunc("GET "+status.PathDrops, func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			s.drops(w, r)
		default:
			http.Error(w, "too many clients follow the drops", http.StatusServiceUnavailable)
		}
	})
}

// drops writes each drop as a line, at once.
func (s *Server) drops(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	control, encoder := http.NewResponseController(w), json.NewEncoder(w)
	begun := false
	flush := func() error {
		begun = true
		return control.Flush() // the status too: a client that follows sees that it does
	}
	follow := status.ParseFollow(r.URL.Query())
	if follow {
		if err := flush(); err != nil {
			return // the client has disconnected
		}
	}
	err := s.policies.Drops(r.Context(), follow, func(d status.Drop) error {
		return errors.Join(encoder.Encode(d), flush())
	})
	if err != nil && !begun {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}
