package node

import (
	"bytes"
	"encoding/json"
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
// Of other files that can hold secrets (secretfiles.go), only the mode and the owner are followed.

// topicKeyFile is of problems with the file of a key that is in use, or of another secret.
const topicKeyFile = "key file"

// keyFileState is the state of the file of a key that is in use.
type keyFileState int

const (
	keyFileIntact     keyFileState = iota
	keyFileMissing                 // the next start makes another key
	keyFileOther                   // the next start has the key that is in the file
	keyFileDamaged                 // the next start fails
	keyFileUnreadable              // the same, by its mode or owner
	keyFileOpen                    // other users than the daemon's can read or change it
)

// judgeKeyFile decides which state a file is in: found is the key in it, err is why it holds none. open says that other
// users can read or change it.
func judgeKeyFile(inUse, found []byte, open bool, err error) keyFileState {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return keyFileMissing
	case errors.Is(err, fs.ErrPermission):
		return keyFileUnreadable
	case err != nil:
		return keyFileDamaged
	case !bytes.Equal(inUse, found):
		return keyFileOther
	case open:
		return keyFileOpen
	}
	return keyFileIntact
}

// access is who can read and change a file.
type access struct {
	mode  fs.FileMode // permissions
	owner uint32      // user ID
}

// open reports whether other users than the daemon's can read or change the file. Root can in any case. others are the
// bits that the mode must not have; an owner can change the mode.
func (a access) open(others fs.FileMode, user uint32) bool {
	return a.mode&others != 0 || a.owner != user && a.owner != 0
}

func (a access) String() string { return fmt.Sprintf("mode %#o, owner %d", a.mode, a.owner) }

// keyFile is the file of a key that is in use, or of several; or another file that can hold a secret.
type keyFile struct {
	path   string
	named  bool   // by the user: only selvaged rotate-key changes it
	noted  bool   // it holds a change of the key, and only the daemon has a reason to change it
	holds  string // what another file can hold, see secretFiles; empty: it is the file of a key
	cure   string // what to do if another user may have read that
	others fs.FileMode
	inUse  []byte                 // what the daemon has read or written
	read   func() ([]byte, error) // the same from the file
	write  func() error

	state  keyFileState
	access access
	linked bool // a symbolic link is at path, perhaps to a volume that is not mounted
}

// keyFile returns the file of a key that is in use.
func (k keeper) keyFile(name string, inUse []byte) (f keyFile, err error) {
	if path := k.keys.named[name]; path != "" {
		return keyFile{
			path: path, named: true, inUse: inUse,
			others: 0o007, // a group can be meant to read it
			read:   func() ([]byte, error) { return readSecret(path, len(inUse)) },
		}, nil
	}
	path, err := secretPath(k.dir, name)
	return keyFile{
		path: path, others: 0o077, inUse: inUse,
		read: func() ([]byte, error) { return k.stored(path, len(inUse)) },
		write: func() error {
			_, err := k.newSecret(k.dir, name, func() ([]byte, error) { return inUse, nil })
			return err
		},
	}, err
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

// keyFile returns the file of a change of the key that is under way.
func (r notedRotation) keyFile(dir string) (f keyFile, err error) {
	inUse, err := json.Marshal(r)
	return keyFile{
		path: filepath.Join(dir, rotationFile), noted: true, others: 0o077, inUse: inUse,
		read: func() ([]byte, error) {
			data, err := os.ReadFile(filepath.Join(dir, rotationFile))
			return bytes.TrimSpace(data), err
		},
		write: func() error { return r.write(dir) },
	}, err
}

// examine finds out which state the file is in.
func (f *keyFile) examine() {
	if info, err := os.Lstat(f.path); err == nil {
		f.linked = info.Mode()&fs.ModeSymlink != 0
	}
	var s unix.Stat_t
	open := false
	if err := unix.Stat(f.path, &s); err == nil {
		f.access = access{fs.FileMode(s.Mode).Perm(), s.Uid}
		open = f.access.open(f.others, uint32(os.Geteuid()))
	}
	found, err := f.read()
	f.state = judgeKeyFile(f.inUse, found, open, err)
	if f.holds != "" && f.state != keyFileOpen && f.state != keyFileUnreadable {
		f.state = keyFileIntact
	}
}

// found is what the daemon repairs, for the log; empty: it repairs nothing.
func (f keyFile) found() string {
	switch {
	case f.named, f.holds != "" && f.linked:
		return ""
	case f.state == keyFileMissing && !f.linked:
		return "missing"
	case f.state == keyFileOpen, f.state == keyFileUnreadable:
		return f.access.String()
	case f.noted && !f.linked && f.state != keyFileIntact:
		return "changed"
	}
	return ""
}

// problem is what is wrong with a file that is not repaired, and what to do; nil: nothing is.
func (f keyFile) problem() error {
	const lost = "packets are lost until the other nodes know it"
	if f.holds != "" {
		return f.accessProblem()
	}
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
	case keyFileUnreadable:
		return fmt.Errorf("selvaged cannot read the key file %s any more (%s): chown it to the user of selvaged; "+
			"or %s; selvaged does not start with this file", f.path, f.access, rotate)
	case keyFileOpen:
		return fmt.Errorf("other users than that of selvaged can read or change the key file %s (%s): chmod 600 and "+
			"chown it, or set the defaultMode of the volume of a Secret to 0400; if one of them may have read it, %s",
			f.path, f.access, rotate)
	}
	return nil
}

// keyFilesInUse returns the files of all keys that are in use, and others that can hold secrets.
func (n *node) keyFilesInUse(now time.Time) (all []keyFile, err error) {
	var errs []error
	add := func(f keyFile, err error) {
		if errs = append(errs, err); err == nil {
			all = append(all, f)
		}
	}
	keep := keeper{n.identity, n.StateDir, n.kernel.DeviceMAC, n.keyFiles()}
	for _, name := range slices.Sorted(maps.Keys(n.secrets)) {
		add(keep.keyFile(name, n.secrets[name]))
	}
	if n.rotating.noted.Stage != "" {
		add(n.rotating.noted.keyFile(n.StateDir))
	}
	return append(all, n.secretFiles(now)...), errors.Join(errs...)
}

// followKeyFiles repairs or reports the files of the keys in use, if they may have changed.
func (n *node) followKeyFiles(wake *alarm) {
	if !n.keysDue {
		return
	}
	all, err := n.keyFilesInUse(wake.now)
	wrong := []error{err}
	var repairs []keyFile
	for _, f := range all {
		if f.examine(); f.found() != "" {
			repairs = append(repairs, f)
		} else {
			wrong = append(wrong, f.problem())
		}
	}
	n.keysWritten.repair = len(repairs) > 0
	if n.keysWritten.repair && !n.keysWritten.due(wake) {
		return // they are checked again then
	}
	var failed []error
	for _, f := range repairs {
		err := f.repair()
		if failed = append(failed, err); err == nil {
			n.keyFileRepaired(f, wake.now)
		}
	}
	n.keysWritten.written(wake, errors.Join(failed...))
	n.keysDue = n.keysWritten.failed
	if err := errors.Join(append(wrong, failed...)...); err != nil {
		n.journal.problem(topicKeyFile, err)
	} else {
		n.journal.resolved(topicKeyFile)
	}
}

// repair writes the file again, with the mode 0600 and the daemon's user as its owner: who has the former file open
// does not change this one. Where a link is, the file that it leads to is repaired.
func (f keyFile) repair() (err error) {
	if f.state != keyFileOpen && f.state != keyFileUnreadable {
		return f.write()
	}
	if !f.linked {
		err = f.write()
	} else if err = errors.Join(os.Chown(f.path, os.Geteuid(), -1), os.Chmod(f.path, 0o600)); err != nil {
		err = errno.Explain(errno.File, err)
	}
	if err != nil {
		return fmt.Errorf("%w; it cannot be repaired: %w", f.problem(), err)
	}
	return nil
}

// keyFileRepaired records a repair, and logs it.
func (n *node) keyFileRepaired(f keyFile, now time.Time) {
	cause, text := "changed", "this node's key file was changed, and is written again"
	switch {
	case f.holds != "":
		text = fmt.Sprintf("repaired mode and owner of a file that can hold %s; if another user may have read it, %s",
			f.holds, f.cure)
	case f.state == keyFileMissing:
		cause, text = "missing", "this node's key file was missing, and is written again with the key in use"
	case f.state == keyFileUnreadable:
		text = "repaired mode and owner of this node's key file, which could not be read"
	case f.state == keyFileOpen:
		text = "repaired mode and owner of this node's key file; if another user may have read it, run " +
			"\"selvaged rotate-key\""
	}
	n.noteRepair(now, network.Repair{Kind: topicKeyFile, Cause: cause, Key: f.path, Count: 1})
	n.journal.few(topicKeyFile, now, func() {
		n.Log.WithFields(logrus.Fields{"file": f.path, "found": f.found()}).Warn(text)
	})
}

// keyPaths returns the paths of the files of all keys that the node can have, and of other secrets: those in the state
// directory, and those that the user names. A file of a Secret's volume is replaced by a link in its directory.
func (n *node) keyPaths() (own, named []string) {
	own = []string{filepath.Join(n.StateDir, rotationFile)}
	for _, f := range n.secretFiles(time.Time{}) {
		own = append(own, f.path)
	}
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
