package subnetfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// statusVersion is the version of the status file's format. A reader accepts newer versions, too, and ignores unknown
// keys: a later version may add keys, but must not change the meaning of existing ones.
const statusVersion = 1

// Status tells programs that attach containers whether the overlay is usable now. It is advice: the subnet file alone
// decides which addresses a container gets. While the status is not usable, a new container may lack connectivity.
type Status struct {
	Usable  bool   `json:"usable"`            // the overlay can carry a new container's packets
	Limited bool   `json:"limited,omitempty"` // not usable, and existing containers are affected, too
	Reason  string `json:"reason,omitempty"`  // why it is not usable, for people

	// PolicySocket is the path of the daemon's socket while the daemon enforces network policies. A program that
	// attaches a pod then reports it there, and waits for the rules of the pod: see attachment.PathAttach. Empty: the
	// daemon enforces none. It says nothing of whether a policy selects a pod of this node already: one may select the
	// next pod. The daemon must write it before the first subnet file of a boot, because pods are attached from then
	// on.
	PolicySocket string `json:"policy_socket,omitempty"`
}

// statusFile is the content of the status file.
type statusFile struct {
	Version int `json:"version"`
	Status
}

// StatusPath returns the path of the status file that belongs to a subnet file.
func StatusPath(subnetFile string) string { return subnetFile + ".status" }

// ReadStatus reads the status that belongs to a subnet file. No status file means usable, and no network policies: then
// the daemon removes it, and flannel and scripts do not write one.
func ReadStatus(subnetFile string) (Status, error) {
	path := StatusPath(subnetFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{Usable: true}, nil
	}
	if err != nil {
		return Status{}, fmt.Errorf("read status file: %w", inPlace(err))
	}
	var f struct {
		Version int    `json:"version"`
		Usable  *bool  `json:"usable"`
		Limited bool   `json:"limited"`
		Reason  string `json:"reason"`
		Socket  string `json:"policy_socket"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return Status{}, fmt.Errorf("status file %s was not written by selvaged (remove it, or restart selvaged): %w",
			path, err)
	}
	if f.Version < statusVersion || f.Usable == nil {
		return Status{}, fmt.Errorf(`status file %s lacks a version or "usable", `+
			`want {"version":%d,"usable":false,"reason":"…"} (remove it, or restart selvaged)`, path, statusVersion)
	}
	if *f.Usable { // Limited and Reason are meaningless then
		return Status{Usable: true, PolicySocket: f.Socket}, nil
	}
	return Status{Limited: f.Limited, Reason: f.Reason, PolicySocket: f.Socket}, nil
}

// WriteStatus writes the status that belongs to a subnet file atomically, and creates the directory if needed. If the
// status is usable and nothing else, it removes the file.
func WriteStatus(subnetFile string, s Status) error {
	path := StatusPath(subnetFile)
	if s == (Status{Usable: true}) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove status file: %w", err)
		}
		return nil
	}
	content, err := json.Marshal(statusFile{statusVersion, s})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	content = append(content, '\n')
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	if err := replaceFile(path, content); err != nil {
		return fmt.Errorf("write status file: %w", err)
	}
	return nil
}
