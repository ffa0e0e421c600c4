package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet/cache"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// This file lists the files that can hold secrets other than the keys in use. Their contents are followed elsewhere, or
// need not be; their modes and owners are followed like those of keys. The mode of the state directory, which is made
// with 0700, is left alone: other programs may use the directory, or its user may want a wider one.

// secretFiles returns these files. A file that the daemon is writing is not among them.
func (n *node) secretFiles(now time.Time) (all []keyFile) {
	add := func(path, holds, cure string, anew func() error) {
		all = append(all, keyFile{
			path: path, others: 0o077, holds: holds, cure: cure,
			read: func() ([]byte, error) {
				file, err := openRegular(path)
				if err == nil {
					file.Close()
				}
				return nil, err
			},
			write: func() error {
				err := rewrite(path)
				if errors.Is(err, fs.ErrPermission) && anew != nil {
					err = anew()
				}
				return err
			},
		})
	}
	const (
		config    = "the preshared key of the network config"
		changePSK = "set another Backend.PSK there, if there is one"
	)
	writeNoted := func() error { return writeBackends(n.StateDir, n.noted) }
	if n.noted == nil { // not known yet; followMove replaces the file
		writeNoted = nil
	}
	add(filepath.Join(n.StateDir, backendFile), config, changePSK, writeNoted)
	if !n.cache.writing { // which replaces it
		add(n.cache.path, config, changePSK, func() error {
			if err := os.Remove(n.cache.path); err != nil { // the next start cannot read it either
				return errno.Explain(errno.File, err)
			}
			n.cache.changed(now)
			return nil
		})
	}
	add(cache.Aside(n.cache.path), config, changePSK, nil)
	if path := n.Mesh.KeyFile(); path != "" {
		add(path, "the key of --mesh-addr", "remove the file and restart selvaged, which makes another key",
			n.Mesh.WriteKey)
	}
	return all
}

// accessProblem is what is wrong with the mode or the owner of such a file, and what to do; nil: nothing is.
func (f keyFile) accessProblem() error {
	switch f.state {
	case keyFileUnreadable:
		return fmt.Errorf("selvaged cannot read %s any more, which can hold %s (%s): chown it to the user of selvaged",
			f.path, f.holds, f.access)
	case keyFileOpen:
		return fmt.Errorf("other users than that of selvaged can read or change %s, which can hold %s (%s): chmod 600 "+
			"and chown it; if one of them may have read it, %s", f.path, f.holds, f.access, f.cure)
	}
	return nil
}

// openRegular opens a regular file for reading. It does not wait for a writer, as a named pipe does.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// rewrite replaces a file by one with the same content, the mode 0600, and the daemon's user as its owner.
func rewrite(path string) error {
	file, err := openRegular(path)
	if err != nil {
		return errno.Explain(errno.File, err)
	}
	data, err := io.ReadAll(file)
	file.Close()
	if err == nil {
		err = wholefile.Replace(path, data, 0o600, 0o700)
	}
	return errno.Written(path, err)
}
