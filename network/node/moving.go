package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// backendFile is the file in the state directory that holds the Backend object of the network config, and in a move the
// other one as well: a daemon that is restarted meanwhile still needs it. It can hold a preshared key.
const backendFile = "backend.json"

// topicMoving is of problems with a move from one backend to another.
const topicMoving = "backend"

// lastPackets is how long a node receives by the old backend after its lease says that peers are not to send by it:
// they have to see that, and what they have sent has to arrive.
const lastPackets = 2 * time.Second

// moving is a move of the network from one backend to another, see [backend.Transition]. It belongs to the loop's
// goroutine.
type moving struct {
	old    *subnet.Backend // nil: the network does not move
	levels backend.Levels
	endAt  time.Time // when the old backend is removed; zero: it is still in use
	// next is a network config that turns back. It waits until the old backend is gone: some nodes have no entries
	// by it any more.
	next []byte
	// checkAt is when the next step is looked for: that takes time in proportion to the number of peers.
	checkAt time.Time
}

// The next step of a move is looked for every moveInterval, or moveEach for each peer, if that is longer: a hundredth
// of the time at most is spent on it.
const (
	moveInterval = 500 * time.Millisecond
	moveEach     = 2 * time.Millisecond
)

// leaving returns the type of the backend whose leases are accepted, beside that of the network config; empty: of none.
func leaving(b backend.Backend) string {
	if t, ok := b.(*backend.Transition); ok && isMoving(t) && !t.Strict() {
		return t.Old.Type
	}
	return ""
}

// leaseType returns the BackendType of the node's lease, by the backend and the type that the network config has.
func leaseType(b backend.Backend, configured string) string {
	if t, ok := b.(*backend.Transition); ok {
		return t.LeaseType()
	}
	return configured
}

// isMoving reports whether a backend is that of a network that moves from one to another.
func isMoving(b backend.Backend) bool {
	t, ok := b.(*backend.Transition)
	return ok && t.Old.Backend != nil
}

// movable reports whether a network can move from one backend to another while its nodes run.
func movable(from, to string) bool {
	return from != to && backends()[from].Beside && backends()[to].Beside
}

// followed returns the move that begins, goes on or turns back when the network config changes. lease is the node's
// own. A backend that it does not name is in no use: a move to it turns back before it has begun.
func (m moving) followed(have, want subnet.Backend, lease subnet.Lease) moving {
	switch {
	case have.Type == want.Type:
		return m
	case !movable(have.Type, want.Type) || !receives(lease, have.Type):
		return moving{}
	}
	return moving{old: &have, levels: levelsOf(lease, want.Type)}
}

// receives reports whether a lease's node receives by a backend.
func receives(l subnet.Lease, backendType string) bool {
	_, ok := l.As(backendType)
	return ok
}

// levelsOf returns the levels of a node whose lease is known, in a move to a backend. It may send by the old one as
// soon as it has it.
func levelsOf(lease subnet.Lease, to string) backend.Levels {
	return backend.Levels{First: lease.BackendType, Offered: receives(lease, to), SendsOld: true}
}

// resume continues the move that an earlier run has begun, or that the network has begun since. own is the node's
// lease, or nil.
func (n *node) resume(own *subnet.Lease) {
	noted, err := readBackends(n.StateDir)
	if err != nil {
		n.Log.WithError(err).Warn("cannot tell by which backend the network was before: nodes that have only that " +
			"one are not reached")
	}
	n.moving, n.noted = moving{}, noted
	for _, old := range noted {
		if !movable(old.Type, n.config.Backend.Type) || own != nil && !receives(*own, old.Type) {
			continue
		}
		n.moving.old = &old.Backend
		n.moving.levels = backend.Levels{First: n.config.Backend.Type, Offered: true, SendsOld: true}
		if own != nil {
			n.moving.levels = levelsOf(*own, n.config.Backend.Type)
		}
		// Without the need to encrypt, packets go by the old one until peers have answered again.
		n.moving.levels.SendsOld = !(n.config.Encrypted && old.Left && n.moving.levels.Offered)
	}
}

// carrier makes the backend of a config for this node.
func (n *node) carrier(c subnet.Config, u backend.Underlay, m moving) (backend.Backend, error) {
	part := func(of subnet.Backend) (backend.Part, error) {
		c, u := c, u
		c.Backend = of
		if u.Own != nil {
			if own, ok := u.Own.As(of.Type); ok {
				u.Own = &own
			} else {
				u.Own = nil
			}
		}
		b, err := newBackend(c, u)
		return backend.Part{Backend: b, Type: of.Type}, err
	}
	t := &backend.Transition{Levels: m.levels, Encrypted: c.Encrypted}
	var err error
	if t.New, err = part(c.Backend); err != nil || m.old == nil {
		return t, err
	}
	if was, ok := n.backend.(*backend.Transition); ok && was.New.Type == t.New.Type {
		t.Answered = was.Answered
	}
	t.Old, err = part(*m.old)
	return t, err
}

// followMove takes the next step of a move to another backend, if the kernel and the peers' leases allow it, and the
// store has what the last one has changed in the node's own lease.
func (n *node) followMove(wake *alarm) {
	m := &n.moving
	t, ok := n.backend.(*backend.Transition)
	if !ok || !n.programmed || !n.holder.final || n.cache.inUse {
		return
	}
	if m.old == nil {
		n.noteBackends(notedBackend{Backend: n.config.Backend})
		return
	}
	n.noteBackends(notedBackend{Backend: n.config.Backend}, notedBackend{Backend: *m.old, Left: !m.levels.SendsOld})
	if err := n.trials.step(wake, n.kernel.Index, n.subnets); err != nil {
		n.journal.problem(topicTrials, fmt.Errorf("cannot find out which nodes are reached by the backend %s, so they "+
			"are reached by %s: %w", t.New.Type, t.Old.Type, err))
	} else {
		n.journal.resolved(topicTrials)
	}
	switch own := n.ownMember(); {
	case wake.now.Before(m.checkAt):
		wake.set(m.checkAt)
		return
	case own == nil || !sameData(*own, n.lease(n.subnets)):
		m.endAt = time.Time{} // the time begins when the store has the lease
	case n.stepMove(t, wake.now) || !t.Levels.Withdrawn:
		m.endAt = time.Time{}
	case m.endAt.IsZero():
		m.endAt = wake.now.Add(lastPackets)
	case !wake.now.Before(m.endAt):
		n.endMove(t, wake.now)
		return
	}
	leases, _ := n.view.Len()
	m.checkAt = wake.now.Add(max(moveInterval, time.Duration(leases)*moveEach))
	wake.set(m.checkAt)
}

// sameData reports whether two leases say the same of how their node is reached.
func sameData(a, b subnet.Lease) bool {
	return a.BackendType == b.BackendType && a.Endpoints == b.Endpoints
}

// stepMove looks for the next step of a move, and takes it if there is one.
func (n *node) stepMove(t *backend.Transition, now time.Time) (stepped bool) {
	var leases []subnet.Lease
	var untried, answered []backend.Way
	for r := range n.view.Peers {
		leases = append(leases, r.Lease)
		if !t.Levels.Offered {
			continue
		}
		expected, _ := t.Expected(r.Lease)
		for _, w := range expected {
			if n.trials.schedule.works(w) {
				answered = append(answered, w)
			} else {
				untried = append(untried, w)
			}
		}
	}
	n.trials.schedule.mutual = false
	n.trials.schedule.set(untried)
	next := t.Next(n.ownPending() == 0, n.tables.Routes.Counts().Pending == 0, leases)
	if next == t.Levels && len(answered) == 0 {
		return false
	}
	n.moving.levels = next
	n.reform(n.uplink, t.With(next, answered), now)
	return true
}

// endMove removes the old backend, which no node uses any more.
func (n *node) endMove(t *backend.Transition, now time.Time) {
	b, err := n.carrier(*n.config, n.underlay(n.uplink, n.ownMember()), moving{})
	if err == nil {
		err = n.takeScope(*n.config, b)
	}
	if err != nil {
		n.journal.problem(topicMoving, err)
		n.moving.endAt = now.Add(waitAfterFailure)
		return
	}
	next := n.moving.next
	n.moving = moving{}
	n.Log.WithFields(logrus.Fields{"backend": t.New.Type, "was": t.Old.Type}).
		Info("the network has moved to another backend; removing what is left of the old one")
	n.trials.close()
	n.journal.resolved(topicTrials)
	n.reform(n.uplink, b, now)
	n.noteBackends(notedBackend{Backend: n.config.Backend})
	if next != nil {
		n.configChanged(next)
	}
}

// notedBackend is a Backend object as backendFile has it.
type notedBackend struct {
	subnet.Backend
	Left bool `json:",omitempty"` // nothing is sent by it any more
}

// noteBackends keeps the Backend objects that are in use for [node.resume].
func (n *node) noteBackends(used ...notedBackend) {
	same := func(a, b notedBackend) bool {
		return a.Type == b.Type && bytes.Equal(a.Options, b.Options) && a.Left == b.Left
	}
	if slices.EqualFunc(n.noted, used, same) {
		return // as a rule
	}
	if err := writeBackends(n.StateDir, used); err != nil {
		n.journal.problem(topicMoving, err)
		return
	}
	n.journal.resolved(topicMoving)
	n.noted = used
}

// readBackends reads what [writeBackends] has written.
func readBackends(dir string) (used []notedBackend, err error) {
	path := filepath.Join(dir, backendFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errno.Explain(errno.File, fmt.Errorf("read the earlier backend: %w", err))
	}
	unnamed := func(b notedBackend) bool { return b.Type == "" }
	if json.Unmarshal(data, &used) != nil || len(used) == 0 || slices.ContainsFunc(used, unnamed) {
		return nil, fmt.Errorf("read the earlier backend: %s is damaged", path)
	}
	return used, nil
}

func writeBackends(dir string, used []notedBackend) error {
	return writeNote(filepath.Join(dir, backendFile), "which backend the network has", used)
}

// writeNote writes to a file of the state directory, as JSON, what a later run of the daemon has to know.
func writeNote(path, what string, v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		err = wholefile.Replace(path, append(data, '\n'), 0o600, 0o700)
	}
	if err != nil {
		return fmt.Errorf("note %s: %w; --state-dir names the directory", what, errno.Written(path, err))
	}
	return nil
}
