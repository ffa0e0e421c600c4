package kube

import (
	"context"
	"slices"
)

// Reviewer returns a function that asks the API server whose a token is. It returns the user's name if the token is
// valid and for the audience, and else why it is not accepted. The error means that there is no answer. It needs the
// right to create tokenreviews, for which [Store.Examine] asks from now on.
func (s *Store) Reviewer(audience string) func(ctx context.Context, token string) (user, why string, err error) {
	s.reviews.Store(true)
	return func(ctx context.Context, token string) (user, why string, err error) {
		r, err := s.client.ReviewToken(ctx, token, audience)
		switch {
		case err != nil:
			return "", "", err
		case !r.Authenticated:
			return "", "it is not valid: " + r.Why, nil
		case !slices.Contains(r.Audiences, audience):
			return "", "it is not for the audience " + audience, nil
		}
		return r.User, "", nil
	}
}
