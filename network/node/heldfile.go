package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet/wholefile"
)

// lockFile is the file in the state directory that a running daemon holds.
const lockFile = "lock"

// LockPath returns the path of the file that a daemon holds as long as it writes the given subnet file.
func LockPath(subnetFile string) string { return subnetFile + ".lock" }

// heldFile is a file with an exclusive lock, flock(2). The kernel releases the lock when the process ends, however it
// ends. It holds across containers that share the file.
type heldFile struct{ file *os.File }

// holder is the content of a held file: who holds it.
type holder struct {
	PID     int    `json:"pid"` // in the holder's pid namespace
	Network string `json:"network"`
}

// heldError says that another daemon holds a file.
type heldError struct{ by holder }

func (e *heldError) Error() string {
	if e.by.PID == 0 {
		return "another selvaged" // it has not written yet who it is, or that was damaged
	}
	return fmt.Sprintf("another selvaged (process %d, network %s)", e.by.PID, e.by.Network)
}

// holdFile locks a file, or returns a heldError.
func holdFile(path, network string) (*heldFile, error) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), wholefile.MakeRoom(path)); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &heldError{readHolder(path)}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	if content, err := json.Marshal(holder{os.Getpid(), network}); err == nil && file.Truncate(0) == nil {
		_, _ = file.WriteAt(append(content, '\n'), 0) // on a full disk the file is locked all the same
	}
	return &heldFile{file}, nil
}

// readHolder reads who holds a file. The holder writes it just after it has locked the file.
func readHolder(path string) holder {
	for range 20 {
		if h, ok := parseHolder(path); ok {
			return h
		}
		time.Sleep(5 * time.Millisecond)
	}
	return holder{}
}

// parseHolder reads who holds a file, or held it last; ok is false if the file does not say so.
func parseHolder(path string) (h holder, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &h) != nil {
		return holder{}, false
	}
	return h, true
}

// close releases the lock. The file stays: another daemon may hold it already.
func (h *heldFile) close() {
	if h != nil {
		h.file.Close()
	}
}
