package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/filewatch"
)

// This file follows the files of the keys that are in use. The daemon reads such a file once (see remembering), so a
// later change takes effect at the next start. By then it is too late to repair it: the key is in no other file.

// topicKeyFile is of problems with the file of a key that is in use.
const topicKeyFile = "key file"

// keyFileState is the state of the file of a key that is in use.
type keyFileState int

const (
	keyFileIntact  keyFileState = iota
	keyFileMissing              // the next start makes another key
	keyFileOther                // the next start has the key that is in the file
	keyFileDamaged              // the next start fails
	keyFileOpen                 // others than the owner can read or change it
)

// judgeKeyFile decides which state a file is in: found is the key in it, err is why it holds none. others are the bits
// that its mode must not have.
func judgeKeyFile(inUse, found []byte, mode, others fs.FileMode, err error) keyFileState {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return keyFileMissing
	case err != nil:
		return keyFileDamaged
	case !bytes.Equal(inUse, found):
		return keyFileOther
	case mode&others != 0:
		return keyFileOpen
	}
	return keyFileIntact
}

// keyFile is the file of a key that is in use.
type keyFile struct {
	path   string
	named  bool // by the user: only selvaged rotate-key changes it
	state  keyFileState
	mode   fs.FileMode
	linked bool // a symbolic link is at path, perhaps to a volume that is not mounted
}

// keyFile reads the file of a key that is in use.
func (k keeper) keyFile(name string, inUse []byte) (f keyFile, err error) {
	others := fs.FileMode(0o077)
	read := func() ([]byte, error) { return k.stored(f.path, len(inUse)) }
	if f.path, f.named = k.keys.named[name], k.keys.named[name] != ""; f.named {
		others = 0o007 // a group can be meant to read it
		read = func() ([]byte, error) { return readSecret(f.path, len(inUse)) }
	} else if f.path, err = secretPath(k.dir, name); err != nil {
		return f, err
	}
	if info, err := os.Lstat(f.path); err == nil {
		f.linked = info.Mode()&fs.ModeSymlink != 0
	}
	if info, err := os.Stat(f.path); err == nil {
		f.mode = info.Mode().Perm()
	}
	found, err := read()
	f.state = judgeKeyFile(inUse, found, f.mode, others, err)
	return f, nil
}

// stored returns the secret in a file of the state directory.
func (k keeper) stored(path string, size int) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	kept, ok := parseSecret(data, size)
	if !ok {
		return nil, damagedSecret(path)
	}
	if kept.InstanceID != k.InstanceID {
		return nil, nil // the next start would make another one
	}
	return kept.Secret, nil
}

// repairable reports whether the daemon repairs the file, and what it found, for the log.
func (f keyFile) repairable() (found string, ok bool) {
	switch {
	case f.named:
		return "", false
	case f.state == keyFileMissing && !f.linked:
		return "missing", true
	case f.state == keyFileOpen:
		return fmt.Sprintf("mode %#o", f.mode), true
	}
	return "", false
}

// problem is what is wrong with a file that is not repaired, and what to do; nil: nothing is.
func (f keyFile) problem() error {
	const lost = "packets are lost until the other nodes know it"
	const rotate = "run \"selvaged rotate-key\", which makes a new key, writes the file, and loses no packet"
	switch f.state {
	case keyFileMissing:
		return fmt.Errorf("the key file %s is missing, and this node's key is in no other file: restore it from a "+
			"backup; or %s; a restart of selvaged without the file makes another key, and %s", f.path, rotate, lost)
	case keyFileOther:
		return fmt.Errorf("the key file %s has been changed, and does not hold the key that is in use: restore it; or "+
			"%s; or restart selvaged, which then has the key of the file, and %s", f.path, rotate, lost)
	case keyFileDamaged:
		return fmt.Errorf("the key file %s has been changed, and holds no key that can be read: restore it; or %s; "+
			"selvaged does not start with this file", f.path, rotate)
	case keyFileOpen:
		return fmt.Errorf("users other than the owner can read or change the key file %s (mode %#o): chmod 600 it, or "+
			"set the defaultMode of the volume of a Secret to 0400; if one of them may have read it, %s",
			f.path, f.mode, rotate)
	}
	return nil
}

// followKeyFiles repairs or reports the files of the keys in use, if they may have changed.
func (n *node) followKeyFiles(wake *alarm) {
	if !n.keysDue {
		return
	}
	keep := keeper{n.identity, n.StateDir, n.kernel.DeviceMAC, n.keyFiles()}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(n.secrets)) {
		f, err := keep.keyFile(name, n.secrets[name])
		if err == nil {
			err = f.problem()
		}
		found, repairs := f.repairable()
		if repairs {
			n.keysWritten.repair = true
			if !n.keysWritten.due(wake) {
				return // it is checked again then
			}
			err = keep.repair(name, n.secrets[name], f)
			n.keysWritten.written(wake, err)
		}
		if repairs && err == nil {
			n.keyFileRepaired(f, found, wake.now)
		}
		wrong = append(wrong, err)
	}
	n.keysDue = n.keysWritten.failed
	if err := errors.Join(wrong...); err != nil {
		n.journal.problem(topicKeyFile, err)
	} else {
		n.journal.resolved(topicKeyFile)
	}
}

// repair writes a missing file again, or restores its mode.
func (k keeper) repair(name string, inUse []byte, f keyFile) error {
	if f.state == keyFileMissing {
		_, err := k.newSecret(k.dir, name, func() ([]byte, error) { return inUse, nil })
		return err
	}
	if err := os.Chmod(f.path, 0o600); err != nil {
		return fmt.Errorf("%w; it cannot be repaired: %w", f.problem(), errno.Explain(errno.File, err))
	}
	return nil
}

// keyFileRepaired records a repair, and logs it.
func (n *node) keyFileRepaired(f keyFile, found string, now time.Time) {
	cause, text := "changed", "repaired the mode of this node's key file; if another user may have read it, run "+
		"\"selvaged rotate-key\""
	if f.state == keyFileMissing {
		cause, text = "missing", "this node's key file was missing, and is written again with the key in use"
	}
	n.noteRepair(now, network.Repair{Kind: topicKeyFile, Cause: cause, Key: f.path, Count: 1})
	n.journal.few(topicKeyFile, now, func() {
		n.Log.WithFields(logrus.Fields{"file": f.path, "found": found}).Warn(text)
	})
}

// keyPaths returns the paths of the files of all keys that the node can have: those in the state directory, and those
// that the user names. A file of a Secret's volume is replaced by a link in its directory.
func (n *node) keyPaths() (own, named []string) {
	for _, k := range backends() {
		if k.Key == nil {
			continue
		}
		if path := n.KeyFiles[k.Key.Secret]; path != "" {
			named = append(named, path, filepath.Join(filepath.Dir(path), filewatch.ConfigMapLink))
		} else if path, err := secretPath(n.StateDir, k.Key.Secret); err == nil {
			own = append(own, path)
		}
	}
	return own, named
}
