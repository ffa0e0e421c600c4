package kube

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// position is where in the store's history a watcher is.
type position struct {
	seen int64 // the version up to which every change of a Node was seen
	// mark is the Node that changed last, and marked the version of that; 0: it was deleted, or there is none. Another
	// history does not have it.
	mark   string
	marked int64
	// stores are the identities of the store, as answers to lists and to watches named them.
	stores [2]apiserver.Identity
}

// The kinds of answers, which the server's flow control can treat differently.
const (
	byList = iota
	byWatch
)

// note makes o the mark.
func (p *position) note(o *apiserver.Object) {
	if o.Version >= p.marked {
		p.mark, p.marked = o.Name, o.Version
	}
}

// other reports whether an answer is from another store than those before.
func (p *position) other(kind int, now apiserver.Identity) bool {
	was := p.stores[kind]
	return was.FlowSchema != "" && now.FlowSchema != "" && was.FlowSchema != now.FlowSchema &&
		was.PriorityLevel != "" && now.PriorityLevel != "" && was.PriorityLevel != now.PriorityLevel
}

// knownNode is what a watcher keeps of a Node, whether or not it has a lease.
type knownNode struct {
	uid     uint64 // a hash
	version int64
	sum     uint64          // a hash of the record that was handed over last
	cidrs   [2]netip.Prefix // the subnets of that record, by Family; none if it is malformed
	leased  bool            // a record was handed over and not deleted
	spec    *podCIDRs       // of spec.podCIDRs, if those were read; they never change
	order   int64           // see orderOf
	// disputed: another Node names its subnets as well, so that its own annotation does not count, but its spec alone
	disputed bool
}

// newKnownNode returns what is kept of a Node that was not known before.
func newKnownNode(o *apiserver.Object) *knownNode {
	return &knownNode{uid: uidOf(o), version: o.Version, order: orderOf(o)}
}

// take notes a record that is to be handed over, and reports whether it is another one than before.
func (n *knownNode) take(r *subnet.Record) bool {
	sum := sumOf(r)
	if n.leased && n.sum == sum {
		return false
	}
	n.leased, n.sum, n.cidrs = true, sum, subnetsOf(r)
	return true
}

// subnetsOf returns the subnets that a record has, by Family: none if it is malformed.
func subnetsOf(r *subnet.Record) (cidrs [2]netip.Prefix) {
	if r.Bad == nil {
		for _, f := range subnet.Families() {
			cidrs[f] = r.Endpoints[f].Subnet
		}
	}
	return cidrs
}

// seed is of the hashes of this process.
var seed = maphash.MakeSeed()

func uidOf(o *apiserver.Object) uint64 { return maphash.String(seed, o.UID) }

// sumOf returns a hash of all of a record but its version.
func sumOf(r *subnet.Record) uint64 {
	bad := ""
	if r.Bad != nil {
		bad = r.Bad.Error()
	}
	return maphash.Comparable(seed, struct {
		lease subnet.Lease
		bad   string
		order int64
	}{r.Lease, bad, r.Order})
}

// contradicts reports whether an object of a list cannot be of the history in which known was what there was at the
// position: a version never gets smaller while an object exists, and an object that has not changed since is known.
func (p *position) contradicts(o *apiserver.Object, known *knownNode) bool {
	switch {
	case p.seen == 0:
		return false
	case o.Version <= p.seen:
		return known == nil || known.version != o.Version
	}
	return false
}

var (
	// errHistory means that the store does not have the history that was seen: it was wiped or restored from a backup.
	errHistory = errors.New("the API server's store has another history than before")
	// errForgotten means that the store has forgotten the version that was seen, and with it what was deleted since.
	errForgotten = errors.New("the API server's store has forgotten the last version that was seen")
)

// noNode is the name of a Node that does not exist.
const noNode = "selvage-no-node"

// fewNodes is up to how many Nodes all of them are compared with another history. Of more, kubelets change one every
// few seconds, since each writes every five minutes.
const fewNodes = 32

// check asks the store whether it has the history that was seen. The error is errHistory if it has another one, and
// errForgotten if that cannot be found out any more.
//
// A store that was restored from a backup counts its versions from there again, and a watch that waits for a version
// which it will reach in a month stays silent. It is recognised by a version in its future, or by a Node that had
// changed when ours did: the server reads one key as it was then (resourceVersionMatch=Exact with metadata.name), from
// its etcd and not from its cache. That is the Node that changed last. If it had not changed since the backup, both
// histories have it, and the one that goes on from the backup can have passed our version with other Nodes changed. In
// a small cluster, where a Node may not change for minutes, all of them are read after it.
func (w *watcher) check(ctx context.Context) error {
	p := &w.position
	name := p.mark
	if name == "" {
		name = noNode // what counts is whether the version exists
	}
	version := int64(0)
	var store apiserver.Identity
	look := func(page apiserver.Page) error {
		store = page.Store
		for _, o := range page.Objects {
			version = o.Version
		}
		return nil
	}
	_, err := w.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{Exactly: p.seen, Name: name}, look)
	switch {
	case errors.Is(err, apiserver.ErrExpired):
		return errForgotten
	case errors.Is(err, apiserver.ErrBehind):
		now, err := w.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{Name: name}, look)
		if err != nil {
			return fmt.Errorf("read the version of the Nodes: %w", err)
		}
		if now < p.seen {
			return errHistory
		}
		return fmt.Errorf("read a Node at version %d: the server is behind", p.seen)
	case err != nil:
		return fmt.Errorf("read a Node at version %d: %w", p.seen, err)
	case p.other(byList, store), version != p.marked:
		return errHistory
	}
	p.stores[byList] = store
	if len(w.nodes) <= fewNodes {
		return w.checkAll(ctx)
	}
	return nil
}

// checkAll is check for all Nodes. A server may answer from its cache, which can be of another history than its etcd if
// that alone was restored.
func (w *watcher) checkAll(ctx context.Context) error {
	same, count := true, 0
	o := apiserver.ListOptions{Exactly: w.position.seen}
	_, err := w.client.List(ctx, apiserver.Nodes, o, func(page apiserver.Page) error {
		for _, o := range page.Objects {
			n := w.nodes[o.Name]
			same = same && n != nil && n.version == o.Version
			count++
		}
		return nil
	})
	switch {
	case errors.Is(err, apiserver.ErrExpired):
		return errForgotten
	case err != nil:
		return fmt.Errorf("read the Nodes at version %d: %w", w.position.seen, err)
	case !same || count != len(w.nodes):
		return errHistory
	}
	return nil
}
