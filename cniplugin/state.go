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
// The file of a container's first attachment has the place and form of flannel's plugin, which keeps one file a
// container, named by its ID: a node that goes back to flannel has its pods detached by that plugin. A key that
// delegates ignore says which interface the file is of. Each further attachment of the container has a file named
// network:containerID:ifName. None of the three can hold a colon, so no two attachments share a name.
//
// Files are replaced by rename, but not synced to disk, which would cost every container's start some milliseconds: a
// power cut that truncates a file has ended the container as well, and a file that does not decode is rebuilt at DEL.
type store struct{ dir string }

// interfaceKey is the key in the file in flannel's place that names the interface. flannel's plugin writes none.
const interfaceKey = "selvage.io/interface"

// stored is the stored configuration of an attachment. The zero value means that there is none.
type stored struct {
	path   string // the file, to be removed once the delegate's DEL is through
	config object // nil if the file does not hold a configuration
}

// path is the file of a where flannel's place has another attachment's.
func (s store) path(a attachment) string {
	return filepath.Join(s.dir, a.network+":"+a.containerID+":"+a.ifName)
}

// flannelPath is the place where flannel's plugin looks for what is stored of a container.
func (s store) flannelPath(a attachment) string { return filepath.Join(s.dir, a.containerID) }

// has reports whether an ADD of this attachment was stored, and no DEL came since.
func (s store) has(a attachment) bool {
	if info, err := os.Lstat(s.path(a)); err == nil && info.Mode().IsRegular() {
		return true
	}
	data, err := os.ReadFile(s.flannelPath(a))
	return err == nil && decodeStored(data).isOf(a)
}

// load returns what ADD stored for a, or else what flannel's plugin did: on a node that is taken over, its containers
// are ours to delete. What is not there is not an error, nor is something else in the place of the file: DEL would fail
// for ever. An attachment without an interface's name is any of the container's on that network.
func (s store) load(a attachment) (stored, error) {
	for _, path := range []string{s.path(a), s.flannelPath(a)} {
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
		if path != s.path(a) && config != nil && !config.mayBeOf(a) {
			continue // there is one such file a container, so this one may be another attachment's
		}
		// One that does not decode is of use to no network.
		return stored{path, config}, nil
	}
	return stored{}, nil
}

// save stores the delegate's configuration for a: in flannel's place, unless that is taken or a has a file already.
func (s store) save(a attachment, config []byte) error {
	path := s.path(a)
	if name := filepath.Base(path); len(name) > maxFileName {
		return fmt.Errorf("the file's name would be %d bytes long (%s), and file systems allow %d: shorten the name "+
			"of the network", len(name), "network:container:interface", maxFileName)
	}
	if _, err := os.Lstat(path); err != nil && s.flannelPathFor(a) {
		d, err := delegation{config: config}.with(interfaceKey, a.ifName)
		if err != nil {
			return err
		}
		path, config = s.flannelPath(a), d.config
	}
	return wholefile.ReplaceUnsynced(path, config, 0o700) // neither name begins with a dot
}

// flannelPathFor reports whether flannel's place can hold the file of a: there is none, that of an earlier ADD of the
// same attachment, or one that is damaged.
func (s store) flannelPathFor(a attachment) bool {
	data, err := os.ReadFile(s.flannelPath(a))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	config := decodeStored(data)
	return config == nil || config.isOf(a)
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

// drop removes the file of a.
func (s store) drop(a attachment) error {
	st, err := s.load(a)
	if err != nil {
		return err
	}
	return s.remove(st)
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
			st, err := s.load(a)
			if err != nil {
				return list, err
			}
			if st.path != "" {
				a.ifName = st.config.text(interfaceKey)
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

// isOf reports whether a stored configuration is that of an ADD of ours for a.
func (o object) isOf(a attachment) bool {
	return o.text("name") == a.network && o.text(interfaceKey) == a.ifName && a.ifName != ""
}

// mayBeOf reports whether a stored configuration is for a, as far as the interfaces of both are known.
func (o object) mayBeOf(a attachment) bool {
	ifName := o.text(interfaceKey)
	return o.text("name") == a.network && (ifName == a.ifName || ifName == "" || a.ifName == "")
}

// text returns a string of the object's, or "".
func (o object) text(key string) string {
	var value string
	if err := json.Unmarshal(o[key], &value); err != nil {
		return ""
	}
	return value
}
