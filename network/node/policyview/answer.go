package policyview

import (
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy/connection"
)

// Answer returns the verdicts on a connection. The error is a status.QueryError if the query is malformed, or names
// what is not known.
func Answer(w connection.World, q status.PolicyQuery) ([]status.PolicyVerdict, error) {
	failed := func(err error) ([]status.PolicyVerdict, error) { return nil, status.QueryError{Err: err} }
	port, err := connection.ParsePort(q.Port)
	if err != nil {
		return failed(err)
	}
	from, err := w.End(q.Source)
	if err != nil {
		return failed(err)
	}
	to, err := w.End(q.Destination)
	if err != nil {
		return failed(err)
	}
	answers, err := w.Ask(from, to, port)
	if err != nil {
		return failed(err)
	}
	return Verdicts(w, answers), nil
}
