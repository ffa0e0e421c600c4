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

// The CNI plugin's defaults, see package cniplugin.
const (
	defaultBridge   = "cni0"
	defaultDelegate = "bridge"
	defaultIPAM     = "host-local"
)

// CNI holds the CNI configurations and plugins that a container runtime finds.
type CNI struct {
	Dir     string // of the configurations; empty: not read
	DirErr  error
	Lists   []CNIList // in the order in which a runtime reads them
	BinDirs []string
	Plugins map[string]error // the plugins that the configurations use, by type: why it cannot be run, or nil
}

// CNIList is one CNI configuration.
type CNIList struct {
	File  string
	Err   error // why it cannot be read, or nil
	Types []string
	// Ours: it has a plugin of type selvage or flannel. The fields below are those of the first such plugin.
	Ours       bool
	SubnetFile string
	Bridge     string // the delegate's; empty: it creates none
	MTU        int    // the delegate's; 0: not set
}

// own returns the first configuration that has a plugin of type selvage or flannel.
func (c CNI) own() (CNIList, bool) {
	i := slices.IndexFunc(c.Lists, func(l CNIList) bool { return l.Ours })
	if i < 0 {
		return CNIList{}, false
	}
	return c.Lists[i], true
}

// gatherCNI reads the same configurations as a container runtime (libcni's ConfFiles).
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

// errNotExecutable is the error of a plugin that exists and cannot be run.
var errNotExecutable = errors.New("is not executable")

// pluginError is the error of a plugin at a path.
type pluginError struct {
	path string
	err  error
}

func (e *pluginError) Error() string { return e.path + " " + e.err.Error() }
func (e *pluginError) Unwrap() error { return e.err }

// findPlugin looks for a plugin as runtimes do, which use the first that exists. It returns why that cannot be run, or
// nil.
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

// plugin holds the fields of a plugin's configuration that the checks use.
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

// parseCNI parses a configuration: a list of plugins (.conflist) or a single plugin (.conf).
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
			l.Err = errors.New("a plugin has no type")
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
