// Package attachment is what the CNI plugin stores of the interfaces that it attached, and the daemon reads: one record
// for each, in a directory beside the subnet file. A record tells what the delegate was asked for and what it made, so
// the daemon knows what the node's pods depend on without guessing.
//
// The directory is as short-lived as the pods: it is below /run, and both are gone after a boot.
package attachment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/subnet/wholefile"
)

// version is the version of a record's format. Later versions may add keys, and must not change the meaning of existing
// ones.
const version = 1

// Key identifies an attachment: one interface of one container on one network. None of the three contains "/" or ":".
type Key struct {
	Network   string `json:"network"`
	Container string `json:"container"` // its ID
	Interface string `json:"interface"` // its name in the container
}

// String returns the form network:container:interface, which is the name of the record's file.
func (k Key) String() string { return k.Network + ":" + k.Container + ":" + k.Interface }

// Record is what is stored of one attachment.
type Record struct {
	Key
	Added    time.Time       `json:"added"`    // when the delegate's ADD succeeded
	NetNS    string          `json:"netns"`    // path of the container's network namespace
	Delegate string          `json:"delegate"` // the plugin that made it, such as "bridge"
	Config   json.RawMessage `json:"config"`   // the delegate's configuration, as rendered
	Result   json.RawMessage `json:"result"`   // what the delegate's ADD returned, in its version of the CNI spec
	Pod      Pod             `json:"pod,omitzero"`
}

// Pod identifies the pod of Kubernetes that a container belongs to, as the runtime names it in CNI_ARGS. It is zero for
// a container of another engine.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // that which the kubelet uses; empty: the runtime does not pass it on
}

// Dir returns the directory of the records that belong to a subnet file.
func Dir(subnetFile string) string { return subnetFile + ".attachments" }

// Save stores a record; it replaces an earlier one of the attachment. The file is not synced to disk: a crash of the
// machine that truncates it ends the container, too.
func Save(dir string, r Record) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := wholefile.ReplaceUnsynced(filepath.Join(dir, r.Key.String()), data, 0o700); err != nil {
		return fmt.Errorf("store the record of %s: %w", r.Key, err)
	}
	return nil
}

// Remove removes the record of an attachment. It is no error if there is none, as for one whose name is too long for a
// file, or where something else is in the place of the record or of the directory.
func Remove(dir string, k Key) error {
	err := os.Remove(filepath.Join(dir, k.String()))
	if err == nil || noRecord(err) {
		return nil
	}
	return fmt.Errorf("remove the record of %s: %w", k, err)
}

// noRecord reports whether an error means that there is no such record.
func noRecord(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) ||
		errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENOTEMPTY)
}

// InUse returns how many records are those of pods that run.
func InUse(dir string) (int, error) {
	live, err := live(dir)
	return len(live), err
}

// Clear removes all other records, what is damaged or was left by an ADD that was killed, and the directory, if it is
// empty then.
func Clear(dir string) error {
	live, err := live(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !noRecord(err) {
		return err
	}
	for _, e := range entries {
		_, record := parseName(e.Name())
		if live[e.Name()] || !record && !wholefile.Temporary(e) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err = os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || len(live) > 0 && errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	return err
}

// live returns the records of pods that run.
func live(dir string) (map[string]bool, error) {
	r := Reader{Dir: dir}
	records, _, _, err := r.Read()
	all := map[string]bool{}
	for _, x := range records {
		if isNamespace(x.NetNS) {
			all[x.Key.String()] = true
		}
	}
	return all, err
}

// isNamespace reports whether path leads to a namespace: a file that was mounted on can stay when the namespace ended.
func isNamespace(path string) bool {
	const nsfs = 0x6e736673 // NSFS_MAGIC in linux/magic.h
	var info syscall.Statfs_t
	return path != "" && syscall.Statfs(path, &info) == nil && info.Type == nsfs
}

// Keys returns the attachments of a network that have a record, whatever is in it.
func Keys(dir, network string) (keys []Key, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !noRecord(err) {
		return nil, err
	}
	for _, e := range entries {
		if k, ok := parseName(e.Name()); ok && k.Network == network {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func parseName(name string) (k Key, ok bool) {
	part := strings.Split(name, ":")
	if len(part) != 3 || strings.HasPrefix(name, ".") {
		return k, false
	}
	return Key{part[0], part[1], part[2]}, true
}

// versioned is a record as it is encoded.
type versioned struct {
	Version int `json:"version"`
	Record
}

// Marshal returns the record as JSON, as it is stored and as it is sent to the daemon.
func (r Record) Marshal() ([]byte, error) {
	data, err := json.Marshal(versioned{version, r})
	if err != nil {
		return nil, fmt.Errorf("encode the record of %s: %w", r.Key, err)
	}
	return data, nil
}

// decode decodes the content of the record of k.
func decode(k Key, data []byte) (Record, error) {
	var r versioned
	err := json.Unmarshal(data, &r)
	switch {
	case len(data) == 0:
		return r.Record, fmt.Errorf("the record of %s is empty", k)
	case err != nil:
		return r.Record, fmt.Errorf("decode the record of %s: %w", k, err)
	case r.Version < version || r.Delegate == "":
		return r.Record, fmt.Errorf(`the record of %s lacks a version or "delegate"`, k)
	case r.Key != k:
		return r.Record, fmt.Errorf("the record of %s is that of %s", k, r.Key)
	}
	return r.Record, nil
}
