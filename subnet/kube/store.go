package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/outage"
)

// Store is a [subnet.Store] on the Kubernetes API. Make one with [New].
type Store struct {
	opts    Options
	client  *apiserver.Client
	names   names
	contact *outage.Outage // of Watch

	heard   atomic.Int64 // when Watch last got a sign of life, in nanoseconds of the Unix time; 0: never
	awaited atomic.Int64 // the version of the latest claim: Watch reports as soon as it has passed it
	own     atomic.Int64 // the version of this node's Node, as a Watch has last seen it
	waiting atomic.Bool  // the latest claim found no subnet: Watch reports every change of this node's Node
	reviews atomic.Bool  // tokens are reviewed, see Reviewer

	mu     sync.Mutex
	advice subnet.NodeAdvice // of this node's Node, as a Watch has last seen it
	unread subnet.Unread     // as a Watch has last found it
	node   string            // the name of this node's Node; empty: not known yet
	wakes  map[chan struct{}]struct{}
	latest map[identity]subnet.Record // what Hold has made of records, for Release
}

var (
	_ subnet.Store          = (*Store)(nil)
	_ subnet.HealthReporter = (*Store)(nil)
	_ subnet.Examiner       = (*Store)(nil)
	_ subnet.AccessReporter = (*Store)(nil)
	_ subnet.Networked      = (*Store)(nil)
	_ subnet.Allocator      = (*Store)(nil)
	_ subnet.NodeAdviser    = (*Store)(nil)

	_ subnet.NetworkAnnouncer = (*Store)(nil)
	_ subnet.UnreadReporter   = (*Store)(nil)
)

// New returns a store. It sends no request yet. The errors are about the options, and name what is wrong.
func New(opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	client, err := apiserver.New(opts.API)
	if err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	return &Store{
		opts: opts, client: client, names: namesOf(opts.Prefix), node: opts.Node,
		contact: &outage.Outage{
			Log: opts.Log, Lost: "Kubernetes API server unavailable; the data path is unaffected",
			Back: "reconnected to the Kubernetes API server",
		},
		wakes:  map[chan struct{}]struct{}{},
		latest: map[identity]subnet.Record{},
	}, nil
}

// Close ends the connections. End Watch and Hold first.
func (s *Store) Close() error { return s.client.Close() }

// Allocates implements [subnet.Allocator].
func (s *Store) Allocates() bool { return true }

// Allocation implements [subnet.Allocator]: it is the version of this node's Node.
func (s *Store) Allocation() int64 { return s.own.Load() }

// Health implements [subnet.HealthReporter].
func (s *Store) Health() subnet.Health {
	h := s.client.Health()
	if at := s.heard.Load(); at != 0 {
		h.LastEvent = time.Unix(0, at)
	}
	return h
}

// Unread implements [subnet.UnreadReporter].
func (s *Store) Unread() subnet.Unread {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread
}

// setUnread replaces what Unread returns. The times at which it began stay.
func (s *Store) setUnread(u subnet.Unread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := func(names []string, before time.Time) time.Time {
		switch {
		case len(names) == 0:
			return time.Time{}
		case before.IsZero():
			return time.Now()
		}
		return before
	}
	u.Since, u.DisputedSince = since(u.Names, s.unread.Since), since(u.Disputed, s.unread.DisputedSince)
	s.unread = u
}

// Outage implements [subnet.HealthReporter].
func (s *Store) Outage() subnet.Outage {
	since, cause := s.contact.State()
	return subnet.Outage{Since: since, Problem: apiserver.ProblemOf(cause)}
}

// Access implements [subnet.AccessReporter].
func (s *Store) Access() subnet.Access {
	a := s.client.Access()
	a.Prefix, a.Config, a.Kubeconfig = s.opts.Prefix, s.opts.NetConfPath, s.opts.API.Kubeconfig
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Node = s.node
	return a
}

// Addresses implements [subnet.Networked].
func (s *Store) Addresses() []netip.Addr { return s.client.Addresses() }

// AddressesChanged implements [subnet.Networked].
func (s *Store) AddressesChanged() { s.client.AddressesChanged() }

// nodeName returns the name of this node's Node. It asks for that of the Pod's once.
func (s *Store) nodeName(ctx context.Context) (string, error) {
	name, known := s.knownName()
	if known {
		return name, nil
	}
	pod := s.opts.Pod
	name, err := s.client.PodNode(ctx, pod.Namespace, pod.Name)
	switch {
	case errors.Is(err, apiserver.ErrNotFound):
		return "", fmt.Errorf("find the Node of this node: there is no Pod %s in namespace %s: check POD_NAME and "+
			"POD_NAMESPACE, or set NODE_NAME: %w", pod.Name, pod.Namespace, err)
	case err != nil:
		return "", fmt.Errorf("find the Node of Pod %s in namespace %s (NODE_NAME in the environment spares this): %w",
			pod.Name, pod.Namespace, err)
	case name == "":
		return "", fmt.Errorf("find the Node of this node: Pod %s in namespace %s has no spec.nodeName yet",
			pod.Name, pod.Namespace)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node = name
	return name, nil
}

// knownName returns the name of this node's Node, if it is known.
func (s *Store) knownName() (name string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.node != ""
}

// await has each Watch report its revision as soon as it has reached a version.
func (s *Store) await(version int64) {
	for {
		before := s.awaited.Load()
		if version == before || s.awaited.CompareAndSwap(before, version) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for wake := range s.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// waker returns a channel on which await wakes its holder, until stop is called.
func (s *Store) waker() (wake chan struct{}, stop func()) {
	wake = make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakes[wake] = struct{}{}
	return wake, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.wakes, wake)
	}
}
