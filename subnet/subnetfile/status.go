package subnetfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// statusVersion is the version of the status file's format. A reader takes a newer one too, as far as it knows the keys:
// a later version may add keys, and may not give another meaning to these.
const statusVersion = 1

// Status is what the daemon tells those who attach containers beside the subnet file: whether this is a good moment for
// it. It is advice. The subnet file alone decides which addresses a container gets; a status says no more than that what
// is attached now may not get far.
type Status struct {
	Usable  bool   `json:"usable"`            // the overlay can carry what a new container sends
	Limited bool   `json:"limited,omitempty"` // not usable, and the containers that are there feel it as well
	Reason  string `json:"reason,omitempty"`  // why it is not usable, for people
}

// statusFile is how a [Status] is written down.
type statusFile struct {
	Version int `json:"version"`
	Status
}

// StatusPath returns where the status of a subnet file is: beside it.
func StatusPath(subnetFile string) string { return subnetFile + ".status" }

// ReadStatus reads the status beside the subnet file at path. No status file means usable: it is not there while all is
// well, and never there beside a subnet file that flannel or a script wrote.
func ReadStatus(subnetFile string) (Status, error) {
	path := StatusPath(subnetFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{Usable: true}, nil
	}
	if err != nil {
		return Status{}, fmt.Errorf("read status file: %w", err)
	}
	var f struct {
		Version int    `json:"version"`
		Usable  *bool  `json:"usable"`
		Limited bool   `json:"limited"`
		Reason  string `json:"reason"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return Status{}, fmt.Errorf("status file %s is not what selvaged writes (remove it, or restart selvaged): %w", path, err)
	}
	if f.Version < statusVersion || f.Usable == nil {
		return Status{}, fmt.Errorf(`status file %s lacks a version or "usable", want {"version":%d,"usable":false,"reason":"…"} `+
			"(remove it, or restart selvaged)", path, statusVersion)
	}
	if *f.Usable { // what is usable is not limited, and needs no reason
		return Status{Usable: true}, nil
	}
	return Status{Limited: f.Limited, Reason: f.Reason}, nil
}

// WriteStatus puts a status beside the subnet file at path, with its directory if need be, so that a reader sees the old
// one or the new and nothing in between. A status that is usable is no file.
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
