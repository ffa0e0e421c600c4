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
}

// statusFile is the content of the status file.
type statusFile struct {
	Version int `json:"version"`
	Status
}

// StatusPath returns the path of the status file that belongs to a subnet file.
func StatusPath(subnetFile string) string { return subnetFile + ".status" }

// ReadStatus reads the status that belongs to a subnet file. No status file means usable: the daemon removes it when
// the overlay is usable, and flannel and scripts do not write one.
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
		return Status{Usable: true}, nil
	}
	return Status{Limited: f.Limited, Reason: f.Reason}, nil
}

// WriteStatus writes the status that belongs to a subnet file atomically, and creates the directory if needed. If the
// status is usable, it removes the file.
func WriteStatus(subnetFile string, s Status) error {
	path := StatusPath(subnetFile)
	if s.Usable {
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
