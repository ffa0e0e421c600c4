package api

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/recent"
)

// policies is a node that enforces policies.
type policies struct {
	recent.Log[status.Drop]
	following chan struct{} // gets a value when a client follows
	broken    error
}

func (p *policies) Policies(context.Context) (status.Policies, error) {
	one := status.Policy{Kind: status.KindNetworkPolicy, Namespace: "shop", Name: "db", Isolates: []string{"ingress"}, Rules: []status.NetworkPolicyRule{}}
	return status.Policies{Enforced: true, Policies: []status.Policy{one}}, p.broken
}

func (p *policies) PolicyVerdict(_ context.Context, q status.PolicyQuery) ([]status.PolicyVerdict, error) {
	if q.Source == "nowhere" {
		return nil, status.QueryError{Err: errors.New("no such pod")}
	}
	return []status.PolicyVerdict{{Source: status.PolicyEnd{Pod: q.Source + " " + q.Destination + " " + q.Port}}}, p.broken
}

func (p *policies) Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error {
	if p.broken != nil {
		return p.broken
	}
	if follow {
		p.following <- struct{}{}
	}
	return p.Each(ctx, follow, func(d status.Drop, _ uint64) error { return yield(d) })
}

// servePolicies serves p on a socket until the test ends, or stop is called, and returns a client.
func servePolicies(t *testing.T, p Policies) (client *status.Client, stop func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	s, err := Listen(Options{Socket: socket, Log: quiet(), Policies: p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, &daemon{}) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return status.NewClient(socket), stop
}

func TestPolicies(t *testing.T) {
	p := &policies{}
	client, _ := servePolicies(t, p)
	list, err := client.Policies(t.Context())
	if err != nil || !list.Enforced || len(list.Policies) != 1 || list.Policies[0].Key() != "shop/db" {
		t.Errorf("policies %+v, %v", list, err)
	}
	verdict, err := client.PolicyVerdict(t.Context(), status.PolicyQuery{Source: "a/b", Destination: "fd00::1", Port: "8000-8009/UDP"})
	if err != nil || len(verdict) != 1 || verdict[0].Source.Pod != "a/b fd00::1 8000-8009/UDP" {
		t.Errorf("verdict %+v, %v", verdict, err)
	}
	var query status.QueryError
	if _, err = client.PolicyVerdict(t.Context(), status.PolicyQuery{Source: "nowhere"}); !errors.As(err, &query) || query.Error() != "no such pod" {
		t.Errorf("error %v, want a QueryError", err)
	}
	p.broken = errors.New("out of order")
	_, ofList := client.Policies(t.Context())
	_, ofVerdict := client.PolicyVerdict(t.Context(), status.PolicyQuery{})
	ofDrops := client.Drops(t.Context(), false, func(status.Drop) error { return nil })
	for _, err := range []error{ofList, ofVerdict, ofDrops} {
		if err == nil || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("error %v, want that of the node", err)
		}
	}
}

// TestNoPolicies: a daemon that enforces no policies says so.
func TestNoPolicies(t *testing.T) {
	client, _ := servePolicies(t, nil)
	_, ofList := client.Policies(t.Context())
	_, ofVerdict := client.PolicyVerdict(t.Context(), status.PolicyQuery{})
	ofDrops := client.Drops(t.Context(), true, func(status.Drop) error { return nil })
	for _, err := range []error{ofList, ofVerdict, ofDrops} {
		if !errors.Is(err, status.ErrNoPolicies) {
			t.Errorf("error %v, want ErrNoPolicies", err)
		}
	}
}

// TestDrops: a client gets the drops that there were, and one that follows also each new one at once.
func TestDrops(t *testing.T) {
	p := &policies{following: make(chan struct{}, maxFollowers+1)}
	client, stop := servePolicies(t, p)
	p.Add(status.Drop{DestinationPort: 1})
	p.Add(status.Drop{DestinationPort: 2})
	var ports []uint16
	err := client.Drops(t.Context(), false, func(d status.Drop) error { ports = append(ports, d.DestinationPort); return nil })
	if err != nil || !slices.Equal(ports, []uint16{1, 2}) {
		t.Errorf("drops %v, %v", ports, err)
	}

	got, ended := make(chan uint16), make(chan error, 1)
	go func() {
		ended <- client.Drops(t.Context(), true, func(d status.Drop) error { got <- d.DestinationPort; return nil })
	}()
	for want := uint16(1); want < 6; want++ {
		if want > 2 {
			p.Add(status.Drop{DestinationPort: want})
		}
		if port := <-got; port != want {
			t.Errorf("the drop %d, want %d", port, want)
		}
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Logf("after the daemon's end: %v", err) // the connection was reset, or it ended
	}
}

// TestDropsBounded: no more clients can follow than the daemon can serve, and one that ends makes room.
func TestDropsBounded(t *testing.T) {
	p := &policies{following: make(chan struct{}, maxFollowers+1)}
	client, _ := servePolicies(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, maxFollowers)
	for range maxFollowers {
		go func() { ended <- client.Drops(ctx, true, func(status.Drop) error { return nil }) }()
	}
	for range maxFollowers {
		<-p.following
	}
	if err := client.Drops(t.Context(), true, func(status.Drop) error { return nil }); err == nil || !strings.Contains(err.Error(), "too many clients") {
		t.Errorf("error %v, want one of too many clients", err)
	}
	cancel()
	for range maxFollowers {
		<-ended
	}
	p.Add(status.Drop{})
	done := errors.New("seen")
	for { // until the daemon has noticed that they are gone
		err := client.Drops(t.Context(), false, func(status.Drop) error { return done })
		if errors.Is(err, done) {
			return
		}
	}
}
