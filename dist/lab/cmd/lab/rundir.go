package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// runDir is the directory of a running lab: it is locked for as long as the lab's outermost process lives, whatever ends
// that, and holds the socket for commands.
type runDir struct {
	path string
	lock *os.File // the directory itself
}

// runDirs is where this user's labs have their directories.
func runDirs() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "selvage-lab")
	}
	return fmt.Sprintf("/tmp/selvage-lab-%d", os.Getuid())
}

func runDirOf(name string) (string, error) {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(name) {
		return "", fmt.Errorf("a lab cannot be named %q: want up to 32 lower case letters, digits and hyphens", name)
	}
	return filepath.Join(runDirs(), name), nil
}

func socketOf(dir string) *net.UnixAddr {
	// A packet a message, so that nothing has to say where one ends.
	return &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(dir, "socket")}
}

// claimRunDir makes and locks the directory of a lab, taking over what a crashed one left.
func claimRunDir(name string) (*runDir, error) {
	path, err := runDirOf(name)
	if err != nil {
		return nil, err
	}
	for {
		if err := makePrivate(runDirs()); err != nil {
			return nil, err
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			if errors.Is(err, os.ErrNotExist) {
				continue // the last lab that ended has just removed the parent
			}
			return nil, err
		}
		lock, err := lockDir(path, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("a lab named %s runs already: end it with \"lab --name %s down\", or take another --name", name, name)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			return &runDir{path: path, lock: lock}, nil
		}
	}
}

// makePrivate makes a directory that is this user's alone; in /tmp, somebody else may have been first.
func makePrivate(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
		return nil // removed in between; the caller tries again
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a directory that belongs to you alone: remove it, or set XDG_RUNTIME_DIR to one that does", path)
	}
	return nil
}

// lockDir opens and locks a directory. One that was removed while the lock was waited for does not exist.
func lockDir(path string, how int) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), how)
	if err == nil {
		var now, locked os.FileInfo
		if locked, err = dir.Stat(); err == nil {
			if now, err = os.Stat(path); err == nil && !os.SameFile(now, locked) {
				err = os.ErrNotExist
			}
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return dir, nil
}

// listen makes the socket.
func (d *runDir) listen() (*os.File, error) {
	addr := socketOf(d.path)
	if err := os.Remove(addr.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix(addr.Net, addr)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false) // it goes on in the sandbox
	return listener.File()
}

// remove takes everything away. The lock goes last, so that whoever waits for it finds nothing.
func (d *runDir) remove() {
	os.RemoveAll(d.path)
	os.Remove(runDirs()) // fails if there are others
	d.lock.Close()
}
