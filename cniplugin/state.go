package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/selvage-net/selvage/subnet/wholefile"
)

// store keeps the delegate's configuration of every attachment, a file each, in dir.
//
// A file is named network:containerID:ifName. None of the three can hold a colon, so no two attachments share a name,
// nor does any with the files of flannel's plugin, which are named by container ID alone.
//
// Files are replaced by rename, but not synced to disk, which would cost every container's start some milliseconds: a
// power cut that truncates a file has ended the container as well, and a file that does not decode is rebuilt at DEL.
type store struct{ dir string }

// stored is the stored configuration of an attachment. The zero value means that there is none.
type stored struct {
	path   string // the file, to be removed once the delegate's DEL is through
	config object // nil if the file does not hold a configuration
}

func (s store) path(a attachment) string {
	return filepath.Join(s.dir, a.network+":"+a.containerID+":"+a.ifName)
}

// has reports whether an ADD of this attachment was stored, and no DEL came since.
func (s store) has(a attachment) bool {
	info, err := os.Lstat(s.path(a))
	return err == nil && info.Mode().IsRegular()
}

// load returns what ADD stored for a, or else what flannel's plugin did: on a node that is taken over, its containers
// are ours to delete. What is not there is not an error, nor is something else in the place of the file: DEL would fail
// for ever.
func (s store) load(a attachment) (stored, error) {
	for _, path := range []string{s.path(a), filepath.Join(s.dir, a.containerID)} {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && wholefile.Dangling(path) {
			return stored{path, nil}, nil // removed like a damaged file
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) ||
			errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) {
			continue // what has too long a name cannot have been stored
		}
		if err != nil {
			return stored{}, err
		}
		config := decodeStored(data)
		if path != s.path(a) && config != nil && config.network() != a.network {
			continue // flannel keeps one file a container, so this one may be another network's
		}
		// One that does not decode is of use to no network.
		return stored{path, config}, nil
	}
	return stored{}, nil
}

// save stores the delegate's configuration for a.
func (s store) save(a attachment, config []byte) error {
	if name := filepath.Base(s.path(a)); len(name) > maxFileName {
		return fmt.Errorf("the file's name would be %d bytes long (%s), and file systems allow %d: shorten the name "+
			"of the network", len(name), "network:container:interface", maxFileName)
	}
	return wholefile.ReplaceUnsynced(s.path(a), config, 0o700) // network names do not begin with a dot
}

// maxFileName is how long a file's name may be (NAME_MAX in linux/limits.h).
const maxFileName = 255

// remove removes the file that [store.load] found.
func (s store) remove(st stored) error {
	if st.path == "" {
		return nil
	}
	if err := os.Remove(st.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // a concurrent DEL removed it
}

// list returns the attachments of a network that something is stored of. Of what flannel's plugin stored, the interface
// is not known.
func (s store) list(network string) (list []attachment, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		switch part := strings.Split(e.Name(), ":"); {
		case e.IsDir(): // not ours
		case len(part) == 3 && part[0] == network:
			list = append(list, attachment{network, part[1], part[2]})
		case len(part) == 1 && isName(part[0]):
			a := attachment{network, part[0], ""}
			if st, err := s.load(a); err != nil {
				return list, err
			} else if st.path != "" {
				list = append(list, a)
			}
		}
	}
	return list, nil
}

// decodeStored returns nil for what is not a delegate's configuration.
func decodeStored(data []byte) object {
	var config object
	if err := json.Unmarshal(data, &config); err != nil {
		return nil
	}
	if name, err := config.pluginType(""); err != nil || name == "" {
		return nil
	}
	return config
}

// network returns the name of the network that a delegate's configuration is for.
func (o object) network() string {
	var name string
	if err := json.Unmarshal(o["name"], &name); err != nil {
		return ""
	}
	return name
}
