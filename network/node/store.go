package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// StoreReport implements api.Source. It takes as long as the store does, so the loop has no part in it.
func (n *node) StoreReport(ctx context.Context) (r status.StoreReport, err error) {
	store, ok := n.Store.(subnet.Examiner)
	if !ok {
		return r, errors.New("this lease store cannot be examined")
	}
	x := store.Examine(ctx)
	r.CertificateEnds, r.Commands = x.CertificateEnds, x.Rights.Commands
	r.RightsCode, r.Rights = problemOf(x.Rights)
	for _, e := range x.Endpoints {
		one := status.StoreEndpoint{
			URL: e.URL, Version: e.Version, Latency: e.Latency, Leader: e.Leader, Learner: e.Learner,
			CertificateEnds: e.CertificateEnds, ClockAhead: e.ClockAhead,
		}
		one.Code, one.Error = problemOf(e.Problem)
		for _, a := range e.Alarms {
			code, text := problemOf(a)
			one.Alarms, one.Problems = append(one.Alarms, status.StoreAlarm{Code: code, Text: text}),
				append(one.Problems, text)
		}
		r.Endpoints = append(r.Endpoints, one)
	}
	return r, nil
}

// problemOf returns a problem of the store as the status has it; nothing if there is none.
func problemOf(p subnet.Problem) (status.Reason, status.Text) {
	if p.Err == nil {
		return "", ""
	}
	return status.Reason(p.Reason), status.Text(p.Err.Error())
}

// storeProblem returns why the store cannot be used; nil: it can.
func (n *node) storeProblem() *status.Problem {
	if n.cache.inUse {
		return &status.Problem{
			Topic: n.words.Topic, Code: status.CachedLeases, Since: n.history.started,
			Text: status.Text(n.words.Name + " has not answered yet: this node uses its cached leases"),
		}
	}
	return n.outage()
}

func (n *node) outage() *status.Problem {
	s, ok := n.Store.(subnet.HealthReporter)
	if !ok {
		return nil
	}
	o := s.Outage()
	if o.Since.IsZero() {
		return nil
	}
	text := status.Text(fmt.Sprint(o.Problem.Err))
	return &status.Problem{Topic: n.words.Topic, Code: status.StoreDown, Text: text, Since: o.Since}
}

// manyUnread is how many leases are named that cannot be read, or are to be verified.
const manyUnread = 5

// unread returns which leases cannot be read, and which are to be verified.
func (n *node) unread() (u subnet.Unread) {
	if s, ok := n.Store.(subnet.UnreadReporter); ok {
		u = s.Unread()
	}
	return u
}

// unreadProblems returns what the status says of leases that cannot be read, or are to be verified.
func (n *node) unreadProblems() (all []status.Problem) {
	u := n.unread()
	add := func(code status.Reason, since time.Time, text string) {
		all = append(all, status.Problem{
			Topic: "leases", Code: code, Text: status.Text(text), Since: since, Warning: true,
		})
	}
	if len(u.Names) > 0 {
		add(status.LeasesUnread, u.Since, fmt.Sprintf("cannot read the subnets of %s; "+
			"their leases stay as they were, and new ones are not used: %v", someOf(u.Names), u.Problem.Err))
	}
	if len(u.Disputed) > 0 {
		add(status.LeasesDisputed, u.DisputedSince, fmt.Sprintf("the subnets of %s are disputed and not verified yet, "+
			"because many are; those that were known first are used", someOf(u.Disputed)))
	}
	return all
}

// someOf names some records, and says how many more there are.
func someOf(names []string) string {
	first, more := shorten(names, manyUnread)
	text := strings.Join(first, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// storeStatus returns the state of the connection to the store, from what is known: it sends no request.
func (n *node) storeStatus() status.Store {
	s := status.Store{Kind: string(n.storeKind)}
	s.Revision, s.Outage = n.view.Revision(), n.outage()
	u := n.unread()
	s.Unread, s.Disputed = len(u.Names), len(u.Disputed)
	if x, ok := n.Store.(subnet.AccessReporter); ok {
		a := x.Access()
		s.Access = &status.StoreAccess{
			Endpoints: a.Endpoints, Prefix: a.Prefix, Config: a.Config, CAFile: a.CAFile, CertFile: a.CertFile,
			KeyFile: a.KeyFile, Username: a.Username, PasswordFile: a.PasswordFile, TokenFile: a.TokenFile,
			Kubeconfig: a.Kubeconfig, Node: a.Node,
		}
	}
	if x, ok := n.Store.(subnet.HealthReporter); ok {
		h := x.Health()
		s.Endpoint, s.Latency, s.LastContact, s.LastEvent = h.Endpoint, h.Latency, h.LastContact, h.LastEvent
		s.Requests, s.Failed, s.Sent, s.Received = h.Requests, h.Failed, h.Sent, h.Received
	}
	return s
}
