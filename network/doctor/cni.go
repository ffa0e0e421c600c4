package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// What the CNI plugin takes when its configuration does not say, see package cniplugin.
const (
	defaultBridge   = "cni0"
	defaultDelegate = "bridge"
	defaultIPAM     = "host-local"
)

// CNI is what a container runtime finds.
type CNI struct {
	Dir     string // of configurations; empty: nobody wants to know
	DirErr  error
	Lists   []CNIList // in the order in which a runtime looks at them
	BinDirs []string
	Plugins map[string]error // by type, for those that the configurations name: why it cannot be run, or nil
}

// CNIList is one configuration.
type CNIList struct {
	File  string
	Err   error // it cannot be read
	Types []string
	// Of one of ours: the first plugin's.
	Ours       bool
	SubnetFile string
	Bridge     string // of the delegate, if that makes one
	MTU        int    // that the user wants; 0: nothing
}

// own is the first configuration with our plugin in it.
func (c CNI) own() (CNIList, bool) {
	i := slices.IndexFunc(c.Lists, func(l CNIList) bool { return l.Ours })
	if i < 0 {
		return CNIList{}, false
	}
	return c.Lists[i], true
}

// gatherCNI reads what a runtime would (libcni's ConfFiles).
func gatherCNI(dir string, bins []string) CNI {
	c := CNI{Dir: dir, BinDirs: bins, Plugins: map[string]error{}}
	if dir == "" {
		return c
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		c.DirErr = err
		return c
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() || !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(path)) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			c.Lists = append(c.Lists, CNIList{File: path, Err: err})
			continue
		}
		l := parseCNI(path, data)
		c.Lists = append(c.Lists, l)
		for _, typ := range l.Types {
			if _, known := c.Plugins[typ]; !known {
				c.Plugins[typ] = findPlugin(typ, bins)
			}
		}
	}
	return c
}

// errNotExecutable is of a plugin that is there and cannot be run.
var errNotExecutable = errors.New("is not executable")

// pluginError says where a plugin is that cannot be run.
type pluginError struct {
	path string
	err  error
}

func (e *pluginError) Error() string { return e.path + " " + e.err.Error() }
func (e *pluginError) Unwrap() error { return e.err }

// findPlugin looks for a plugin as runtimes do: the first that there is counts.
func findPlugin(typ string, dirs []string) error {
	for _, dir := range dirs {
		path := filepath.Join(dir, typ)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || unix.Access(path, unix.X_OK) != nil {
			return &pluginError{path, errNotExecutable}
		}
		return nil
	}
	return fs.ErrNotExist
}

// plugin is what concerns us of a plugin's configuration.
type plugin struct {
	Type       string
	SubnetFile string
	IPAM       struct{ Type string }
	Delegate   struct {
		Type   string
		Bridge string
		MTU    int
		IPAM   struct{ Type string }
	}
}

// parseCNI reads a configuration: a list of plugins, or a single one as older runtimes have it.
func parseCNI(path string, data []byte) CNIList {
	l := CNIList{File: path}
	var list struct {
		Plugins []plugin
		plugin
	}
	if err := json.Unmarshal(data, &list); err != nil {
		l.Err = err
		return l
	}
	if list.Plugins == nil {
		list.Plugins = []plugin{list.plugin}
	}
	for _, p := range list.Plugins {
		if p.Type == "" {
			l.Err = errors.New("a plugin in it has no type")
			return l
		}
		l.Types = append(l.Types, p.Type)
		if p.Type != "selvage" && p.Type != "flannel" || l.Ours {
			if p.IPAM.Type != "" {
				l.Types = append(l.Types, p.IPAM.Type)
			}
			continue
		}
		l.Ours, l.SubnetFile, l.MTU = true, p.SubnetFile, p.Delegate.MTU
		delegate := cmp.Or(p.Delegate.Type, defaultDelegate)
		if delegate == defaultDelegate {
			l.Bridge = cmp.Or(p.Delegate.Bridge, defaultBridge)
		}
		l.Types = append(l.Types, delegate, cmp.Or(p.Delegate.IPAM.Type, cmp.Or(p.IPAM.Type, defaultIPAM)))
	}
	return l
}
