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
}

// Dir returns the directory of the records that belong to a subnet file.
func Dir(subnetFile string) string { return subnetFile + ".attachments" }

// Save stores a record; it replaces an earlier one of the attachment. The file is not synced to disk: a crash of the
// machine that truncates it ends the container, too.
func Save(dir string, r Record) (err error) {
	data, err := json.Marshal(struct {
		Version int `json:"version"`
		Record
	}{version, r})
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", r.Key, err)
	}
	t, err := os.CreateTemp(dir, ".*") // mode 0600
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			t, err = os.CreateTemp(dir, ".*")
		}
	}
	if err != nil {
		return fmt.Errorf("store the record of %s: %w", r.Key, err)
	}
	_, err = t.Write(data)
	if closeErr := t.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(t.Name(), filepath.Join(dir, r.Key.String()))
	}
	if err != nil {
		_ = os.Remove(t.Name()) // the first error is returned
		return fmt.Errorf("store the record of %s: %w", r.Key, err)
	}
	return nil
}

// Remove removes the record of an attachment. It is no error if there is none, as for one whose name is too long for a
// file.
func Remove(dir string, k Key) error {
	err := os.Remove(filepath.Join(dir, k.String()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("remove the record of %s: %w", k, err)
	}
	return nil
}

// Keys returns the attachments of a network that have a record, whatever is in it.
func Keys(dir, network string) (keys []Key, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// Decode decodes the content of the record of k.
func Decode(k Key, data []byte) (Record, error) {
	var r struct {
		Version int `json:"version"`
		Record
	}
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
