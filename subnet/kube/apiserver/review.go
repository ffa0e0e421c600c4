package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// TokenReview is what the API server says of a token.
type TokenReview struct {
	Authenticated bool
	User          string   // such as "system:serviceaccount:NAMESPACE:NAME"
	Audiences     []string // those of the review that the token is for
	Why           string   // why it is not accepted, for people; often empty
}

// tokenReview is a TokenReview in JSON (k8s.io/api, authentication/v1).
type tokenReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status struct {
		Authenticated bool `json:"authenticated"`
		User          struct {
			Username string `json:"username"`
		} `json:"user"`
		Audiences []string `json:"audiences"`
		Error     string   `json:"error"`
	} `json:"status"`
}

// ReviewToken asks the API server whose a token is, which has to be for one of the audiences. The client needs the
// right to create tokenreviews. An error means that there is no review, and never has the token in its text.
//
// The caller has to compare Audiences with what it asked for: an authenticator that knows no audiences accepts any
// token, and names none (k8s.io/api, authentication/v1, TokenReviewStatus).
func (c *Client) ReviewToken(ctx context.Context, token string, audiences ...string) (r TokenReview, err error) {
	review := tokenReview{APIVersion: TokenReviews.Group + "/" + TokenReviews.Version, Kind: "TokenReview"}
	review.Spec.Token, review.Spec.Audiences = token, audiences
	body, err := json.Marshal(review)
	if err != nil {
		return r, err
	}
	path := TokenReviews.path()
	body, err = c.small(ctx, request{
		verb: "POST", method: http.MethodPost, path: path, accept: jsonType, body: body, sends: jsonType,
	})
	if err != nil {
		return r, err
	}
	var answer tokenReview
	if err := json.Unmarshal(body, &answer); err != nil {
		return r, fmt.Errorf("%w: POST %s: %w", ErrMalformed, path, err)
	}
	s := answer.Status
	return TokenReview{
		Authenticated: s.Authenticated, User: s.User.Username, Audiences: s.Audiences, Why: shorten(s.Error),
	}, nil
}
