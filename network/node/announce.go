package node

import (
	"context"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
)

// announcer has the store say that this node's network is up, once it is and again for each lease, if the store can do
// that. It belongs to the loop's goroutine; a request runs in the background, and its result is for ended.
type announcer struct {
	store   subnet.NetworkAnnouncer // nil: the store cannot
	start   func(func())            // runs a function in the background
	results chan error              // how a request ended: for ended
	due     bool
	running bool
	backoff backoff.Backoff // between requests that fail
}

// announceBackoff spaces requests that fail.
var announceBackoff = backoff.Policy{Min: time.Second, Max: time.Minute, Jitter: 0.2}

func newAnnouncer(store subnet.Store, start func(func())) *announcer {
	s, _ := store.(subnet.NetworkAnnouncer)
	return &announcer{store: s, start: start, results: make(chan error, 1)}
}

// leaseGained says that there is a lease for which nothing was announced yet.
func (a *announcer) leaseGained() { a.due = a.store != nil }

// step announces the network if that is due and the network is up.
func (a *announcer) step(ctx context.Context, wake *alarm, up bool) {
	if !a.due || !up || a.running {
		return
	}
	if !a.backoff.Due(wake.now) {
		wake.set(a.backoff.At())
		return
	}
	a.due, a.running = false, true
	a.start(func() { a.results <- a.store.AnnounceNetwork(ctx) }) // it has room
}

// announced takes in how a request of the announcer ended.
func (n *node) announced(err error, now time.Time) {
	a := n.announcer
	a.running = false
	if err != nil {
		a.due = true
		a.backoff.Next(announceBackoff, now)
		n.journal.problem(topicAnnounce, err)
		return
	}
	a.backoff.Reset()
	n.journal.resolved(topicAnnounce)
}
