package backend

import (
	"maps"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Stage is how far a node is in the change of the key that peers know it by. A WireGuard device has one key, and
// accepts a subnet's packets by one key of a peer. So both ends use second devices meanwhile, and no end leaves a
// device before the other one has been seen to receive, and to send, by the next one:
//
//	           first device   second device   peers send by
//	Still      old key                        the first one
//	Offered    old key        new key         the first one, then the second one
//	Left       old key        new key         the second one
//	Returning  new key        new key         the second one, then the first one
//	Ending     new key        new key         the first one
//	Still      new key                        the first one
//
// A node takes the next stage once it and all of its peers send as the last column says. The lease says which stage it
// is, but for Ending, which looks like Still: the second device remains for the last packets.
//
// A peer of such a node has a second device, too, with its own key, at a port that follows from the network config. Its
// lease does not change.
type Stage int

// The stages.
const (
	Still Stage = iota
	Offered
	Left
	Returning
	Ending
)

// String returns the name of a stage, as leases and the status have it.
func (s Stage) String() string {
	return [...]string{"", "offered", "left", "returning", "ending"}[s]
}

// Rotation is what a node knows of its own change of the key, and of those of its peers.
type Rotation struct {
	Stage    Stage
	Old, New network.Secret // zero in stage Still: the key is the one that is kept
	// Beside: the node has second devices, since it changes its key, or a peer does. Ready: it has peers on them, too.
	Beside, Ready bool
	// Resumed: the daemon was restarted in this stage, so Answered is not complete. It matters in stage Returning,
	// in which all peers have been reached by second devices.
	Resumed bool
	// Answered are the ways, to peers that change their keys or from a node that does, by which packets are known to
	// arrive.
	Answered map[Way]struct{}
}

// Works reports whether packets are known to arrive by all of some ways.
func (r Rotation) Works(ways []Way) bool {
	return !slices.ContainsFunc(ways, func(w Way) bool { _, ok := r.Answered[w]; return !ok })
}

// With returns a Rotation with more ways by which packets arrive.
func (r Rotation) With(answered []Way) Rotation {
	if r.Answered = maps.Clone(r.Answered); r.Answered == nil {
		r.Answered = map[Way]struct{}{}
	}
	for _, w := range answered {
		r.Answered[w] = struct{}{}
	}
	return r
}

// Next returns the stage that follows, if all peers send and receive as it requires.
func (s Stage) Next() Stage { return (s + 1) % (Ending + 1) }

// Rotator is a [Backend] by whose key peers know a node, and that can change it while packets are sent.
type Rotator interface {
	// Rotates reports whether the node with a lease changes its key.
	Rotates(l subnet.Lease) bool
	// Ways returns the ways by which packets to the node with a lease have to arrive, as far as this node or that one
	// changes its key, before the change goes on. mutual: the other node has to send by them, too.
	Ways(l subnet.Lease) (ways []Way, mutual bool)
}

// Rotator returns the part that can change its key, or nil.
func (t *Transition) Rotator() Rotator {
	for _, p := range t.parts() {
		if r, ok := p.Backend.(Rotator); ok {
			return r
		}
	}
	return nil
}
