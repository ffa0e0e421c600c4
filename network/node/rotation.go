package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/node/status"
)

// This file has what a node keeps while it changes its key: see [backend.Stage]. rotating.go has what it then does.

// rotationFile is the file in the state directory that holds both keys, and the stage. While it exists, it says which
// key the node has, and not the key's own file: that is written before peers return to the first device.
const rotationFile = "key-rotation" + secretSuffix

// topicRotation is of problems with the change of this node's key.
const topicRotation = "key"

// keySize is the size of a key in bytes.
const keySize = len(network.Secret{})

// notedRotation is the content of the file.
type notedRotation struct {
	InstanceID string    `json:"instanceID"` // of the identity that the keys belong to
	Stage      string    `json:"stage"`
	Old        []byte    `json:"old"`
	New        []byte    `json:"new"`
	Began      time.Time `json:"began"`
	Force      bool      `json:"force,omitempty"` // peers that do not answer are not waited for
}

// rotationRequested is the stage of a change that begins once no peer uses the node's second devices: they have the key
// that the node has until then.
const rotationRequested = "requested"

// rotation returns what the backend has to know of it.
func (r notedRotation) rotation() (b backend.Rotation, ok bool) {
	if len(r.Old) != keySize || len(r.New) != keySize {
		return b, false
	}
	for s := backend.Offered; s <= backend.Ending; s++ {
		if s.String() == r.Stage {
			return backend.Rotation{Stage: s, Old: network.Secret(r.Old), New: network.Secret(r.New)}, true
		}
	}
	return b, r.Stage == rotationRequested
}

// readRotation reads the file. ok is false if the node does not change its key. A file of another identity is removed:
// the machine is a clone.
func readRotation(dir, instanceID string) (r notedRotation, ok bool, err error) {
	path := filepath.Join(dir, rotationFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, errno.Explain(errno.File, fmt.Errorf("read the change of the node's key: %w", err))
	}
	if json.Unmarshal(data, &r) == nil {
		_, ok = r.rotation()
	}
	switch {
	case !ok:
		return r, false, fmt.Errorf("the change of the node's key in %s is damaged, so it is not known which key "+
			"other nodes know: restore the file from a backup; or delete it, then the node uses the key of its key "+
			"file, and announces it to the others", path)
	case r.InstanceID != instanceID:
		return r, false, removeRotation(dir)
	}
	return r, true, nil
}

func (r notedRotation) write(dir string) error {
	return writeNote(filepath.Join(dir, rotationFile), "the change of the node's key", r)
}

func removeRotation(dir string) error {
	err := os.Remove(filepath.Join(dir, rotationFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errno.Explain(errno.File, fmt.Errorf("end the change of the node's key: %w", err))
	}
	return nil
}

// key returns the kind of key by which peers know the node; nil: there is none.
func (n *node) key() *backend.Key { return backends()[n.config.Backend.Type].Key }

// replaceKey puts a key in place of the one that the node keeps.
func (n *node) replaceKey(key []byte) error {
	name := n.key().Secret
	var err error
	if path := n.keyFiles().named[name]; path != "" {
		err = writeSecret(path, key)
	} else {
		_, err = n.identity.newSecret(n.StateDir, name, func() ([]byte, error) { return key, nil })
	}
	if err != nil {
		return err
	}
	n.secrets[name] = key
	return nil
}

// keyReplaceable returns why replaceKey would fail, or nil.
func (n *node) keyReplaceable() error {
	path := n.keyFiles().named[n.key().Secret]
	if path == "" {
		return nil
	}
	if err := unix.Access(filepath.Dir(path), unix.W_OK); err != nil {
		return fmt.Errorf("the key file %s cannot be replaced: %w; write another key into the file, and restart "+
			"selvaged: packets are lost until the other nodes know it", path, err)
	}
	return nil
}

// rotating is what a node knows of its own change of the key, and of those of its peers. It belongs to the loop's
// goroutine.
type rotating struct {
	backend.Rotation
	noted notedRotation
	// peers are the names of the leases whose nodes change their keys.
	peers map[string]struct{}
	// confirmed are the ways by which peers have been seen to receive and to send, since the store has had the lease of
	// this stage, which is since stageAt; zero: it does not have it yet.
	confirmed map[backend.Way]struct{}
	stageAt   time.Time
	needed    bool      // the second devices are
	lingers   time.Time // until when they remain for the last packets, once they are not needed any more
	checkAt   time.Time // when the next step is looked for
}

// resumeRotation continues a change of the key that an earlier run has begun.
func (n *node) resumeRotation() error {
	noted, ok, err := readRotation(n.StateDir, n.identity.InstanceID)
	if err != nil {
		return err
	}
	n.rotating.noted, n.rotating.Rotation = noted, backend.Rotation{}
	if !ok {
		return nil
	}
	if n.rotating.Rotation, _ = noted.rotation(); n.rotating.Stage != backend.Still {
		n.rotating.Beside, n.rotating.Ready, n.rotating.Resumed = true, true, true
	}
	if kind := n.key(); kind != nil && n.rotating.Stage >= backend.Returning {
		n.secrets[kind.Secret] = noted.New // it is in the key file since then, which is followed
	}
	n.Log.WithField("stage", noted.Stage).Info("continuing the change of this node's key")
	return nil
}

// abandonRotation ends a change of the key that has become pointless.
func (n *node) abandonRotation(why string) {
	if n.rotating.noted.Stage != "" {
		n.Log.Warn("gave up the change of this node's key: " + why)
	}
	if err := removeRotation(n.StateDir); err != nil {
		n.journal.problem(topicRotation, err)
	}
	n.rotating.Rotation, n.rotating.noted = backend.Rotation{}, notedRotation{}
}

// errRotation is why no change of the key can begin.
func errRotation(format string, args ...any) error {
	return status.QueryError{Err: fmt.Errorf("the key is not changed: "+format, args...)}
}

// beginRotation begins a change of the node's key. One that is under way goes on; force then applies to it.
func (n *node) beginRotation(force bool, now time.Time) error {
	r := &n.rotating
	t, ok := n.backend.(*backend.Transition)
	switch {
	case !ok || !n.programmed || !n.holder.final || n.cache.inUse:
		return errRotation("this node is not ready, see selvaged status")
	case isMoving(t):
		return errRotation("the network moves from %s to %s; try again once selvaged status shows that it has",
			t.Old.Type, t.New.Type)
	case t.Rotator() == nil:
		return errRotation("the backend %s has none", t.New.Type)
	case r.noted.Stage != "" && (!force || r.noted.Force):
		return nil
	case r.noted.Stage != "":
		r.noted.Force = true
		return r.noted.write(n.StateDir)
	}
	if err := n.keyReplaceable(); err != nil {
		return errRotation("%w", err)
	}
	old, err := n.keep().Secret(n.key().Secret, keySize, n.key().Make)
	if err != nil {
		return err
	}
	next, err := n.key().Make()
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	noted := notedRotation{n.identity.InstanceID, rotationRequested, old, next, now, force}
	if err := noted.write(n.StateDir); err != nil {
		return err
	}
	r.noted = noted
	n.Log.Info("the key of this node is to be changed")
	return nil
}

// offerKey begins the change of the key that was requested.
func (n *node) offerKey(wake *alarm) error {
	noted := n.rotating.noted
	noted.Stage = backend.Offered.String()
	if err := noted.write(n.StateDir); err != nil {
		wake.set(wake.now.Add(waitAfterFailure))
		return err
	}
	n.rotating.noted, n.rotating.stageAt = noted, time.Time{}
	begun, _ := noted.rotation()
	begun.Beside = true
	wake.set(wake.now.Add(secondRetry))
	return n.applyRotation(begun, wake.now)
}

// RotateKey implements api.Source.
func (n *node) RotateKey(ctx context.Context, force bool) (s status.Rotation, err error) {
	asked := n.ask(ctx, func() {
		if err = n.beginRotation(force, time.Now()); err == nil {
			s = *n.rotationStatus()
			notify(n.kernelChanged) // the loop goes on with it
		}
	})
	return s, errors.Join(asked, err)
}
