package install

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
)

// marker is the key by which a network configuration of ours is known. Its value is a digest of the others, so that one
// that was edited is known as well. Runtimes leave keys alone that they do not know.
const marker = "selvage.installed"

type object = map[string]any

// conflist returns the network configuration to be installed.
func conflist(o Options) (object, error) {
	if o.Template == "" {
		return defaultConflist(o)
	}
	data, err := os.ReadFile(o.Template)
	if err != nil {
		return nil, err
	}
	list, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Template, err)
	}
	if name, _ := list["name"].(string); name == "" {
		return nil, fmt.Errorf("%s: no \"name\"", o.Template)
	}
	if plugins, _ := list["plugins"].([]any); len(plugins) == 0 {
		return nil, fmt.Errorf("%s: no \"plugins\", want a list of them", o.Template)
	}
	return list, nil
}

// defaultConflist has the plugin and those of the usual ones after it that are installed.
func defaultConflist(o Options) (object, error) {
	for _, needed := range []string{"bridge", "host-local"} {
		if !present(o, needed) {
			return nil, fmt.Errorf("%s has no plugin %s: install the reference plugins there "+
				"(github.com/containernetworking/plugins)", o.BinDir, needed)
		}
	}
	first := object{"type": o.Names[0], "delegate": object{"hairpinMode": true, "isDefaultGateway": true}}
	if o.SubnetFile != DefaultSubnetFile {
		first["subnetFile"] = o.SubnetFile
	}
	plugins := []any{first}
	for _, p := range []struct{ name, capability string }{{"portmap", "portMappings"}, {"bandwidth", "bandwidth"}} {
		if present(o, p.name) {
			plugins = append(plugins, object{"type": p.name, "capabilities": object{p.capability: true}})
		}
	}
	// A runtime that knows 1.1 asks for STATUS then; containerd 1.6 would not take a list of that version alone.
	versions := []any{"1.0.0", "1.1.0"}
	return object{"cniVersion": "1.0.0", "cniVersions": versions, "name": "cbr0", "plugins": plugins}, nil
}

func present(o Options, plugin string) bool {
	info, err := os.Stat(filepath.Join(o.BinDir, plugin))
	return err == nil && info.Mode().IsRegular()
}

func decode(data []byte) (object, error) {
	var o object
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // so that a number stays what it is
	if err := d.Decode(&o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, errors.New("null is no network configuration")
	}
	return o, nil
}

// encode returns a network configuration with the marker.
func encode(list object) ([]byte, error) {
	digest, err := digest(list)
	if err != nil {
		return nil, err
	}
	marked := object{marker: digest}
	for key, value := range list {
		if key != marker {
			marked[key] = value
		}
	}
	data, err := json.MarshalIndent(marked, "", "  ")
	return append(data, '\n'), err
}

func digest(list object) (string, error) {
	rest := object{}
	for key, value := range list {
		if key != marker {
			rest[key] = value
		}
	}
	data, err := json.Marshal(rest) // maps are encoded in the order of their keys
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data)), err
}

// state is what there is where the network configuration belongs.
type state int

const (
	absent  state = iota
	ours          // as it was installed
	same          // another program's, and the same as ours
	foreign       // another program's, or edited
)

func inspect(path string, want object) (state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return foreign, err
	}
	got, err := decode(data)
	if err != nil {
		return foreign, nil // what cannot be read is not ours
	}
	if d, err := digest(got); err != nil {
		return foreign, err
	} else if got[marker] == d {
		return ours, nil
	}
	if plain, err := json.Marshal(want); err == nil {
		if again, err := decode(plain); err == nil && reflect.DeepEqual(got, again) {
			return same, nil
		}
	}
	return foreign, nil
}

func conflistPath(o Options) (string, error) {
	if o.Conflist != filepath.Base(o.Conflist) || filepath.Ext(o.Conflist) != ".conflist" {
		return "", fmt.Errorf("%q is not the name of a list that runtimes read, want one such as %q",
			o.Conflist, DefaultConflist)
	}
	return filepath.Join(o.ConfDir, o.Conflist), nil
}

func installConflist(o Options, r *Report) error {
	path, err := conflistPath(o)
	if err != nil {
		return err
	}
	list, err := conflist(o)
	if err != nil {
		return err
	}
	found, err := inspect(path, list)
	if err != nil {
		return err
	}
	content, err := encode(list)
	if err != nil {
		return err
	}
	switch {
	case found == same:
		r.done("%s is up to date", path)
	case found == foreign && !o.Force:
		return fmt.Errorf("%s was written by another program or edited, and was kept: remove it, choose another file "+
			"name, or force it", path)
	default:
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			r.done("%s is up to date", path)
			break
		}
		if err := replace(path, content, 0o644); err != nil {
			return err
		}
		r.done("%s is written", path)
	}
	return others(o, list, r)
}

// otherConfigurations returns the file names of the network configurations beside ours, in the runtimes' order.
func otherConfigurations(o Options) (names []string, err error) {
	entries, err := os.ReadDir(o.ConfDir)
	for _, e := range entries {
		known := slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name()))
		if e.Name() != o.Conflist && !e.IsDir() && known {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// others warns of configurations beside ours. They belong to other programs and stay, but a runtime takes the first by
// name.
func others(o Options, list object, r *Report) error {
	names, err := otherConfigurations(o)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(o.ConfDir, name)
		if name < o.Conflist {
			r.warn("%s comes before %s: a runtime that uses one network uses that one", path, o.Conflist)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			r.warn("%s cannot be read: %v", path, err)
			continue
		}
		if other, err := decode(data); err == nil && other["name"] == list["name"] {
			r.warn("%s has the network name %v as well: the two share addresses and what is kept", path, list["name"])
		}
	}
	return nil
}

func removeConflist(o Options, r *Report) error {
	path, err := conflistPath(o)
	if err != nil {
		return err
	}
	switch found, err := inspect(path, nil); {
	case err != nil:
		return err
	case found == absent:
		return nil
	case found != ours && !o.Force:
		r.warn("%s was written by another program or edited: kept", path)
		return nil
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	r.done("%s is removed", path)
	return nil
}
