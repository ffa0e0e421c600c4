package install

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// pluginPath is the plugin's package, which every Go program carries.
const pluginPath = "github.com/selvage-net/selvage/cniplugin/selvage"

// program is an installed program, or one to be installed.
type program struct {
	content []byte
	ours    bool   // it is the plugin
	version string // if it is
}

func readProgram(path string) (program, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return program{}, err
	}
	p := program{content: content}
	// What cannot be read as a program is a damaged one, or a script.
	if info, err := buildinfo.Read(bytes.NewReader(content)); err == nil && info.Path == pluginPath {
		p.ours, p.version = true, info.Main.Version
	}
	return p, nil
}

// installProgram puts the plugin into the directory under a name.
func installProgram(o Options, name string, r *Report) error {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%q is no name for a plugin, want one without a path such as %q", name, defaultName)
	}
	offered, err := readProgram(o.Program)
	if err != nil {
		return err
	}
	if !offered.ours {
		return fmt.Errorf("%s is not the plugin, want the program selvage", o.Program)
	}
	target := filepath.Join(o.BinDir, name)
	installed, err := readProgram(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case bytes.Equal(installed.content, offered.content):
		// A mode that was lost would keep the runtime from starting it.
		if err := os.Chmod(target, 0o755); err != nil {
			return err
		}
		r.done("%s is up to date (%s)", target, offered.version)
		return nil
	case installed.ours && olderThan(offered.version, installed.version) && !o.Force:
		r.warn("%s is %s, newer than %s: kept", target, installed.version, offered.version)
		return nil
	}
	if err := replace(target, offered.content, 0o755); err != nil {
		return err
	}
	r.done("%s is now %s", target, offered.version)
	return nil
}

func removeProgram(o Options, name string, r *Report) error {
	target := filepath.Join(o.BinDir, name)
	installed, err := readProgram(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !installed.ours && !o.Force {
		r.warn("%s is not selvage: kept", target)
		return nil
	}
	if err := os.Remove(target); err != nil {
		return err
	}
	r.done("%s is removed", target)
	return nil
}

// replace puts content at path by rename, synced to disk first: after a power cut there is the old file or the new. The
// temporary file's name starts with a dot and ends with digits, so runtimes take it neither for a plugin nor for a
// configuration.
func replace(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, content, mode, renameio.WithStaticPermissions(mode), renameio.WithTempDir(dir))
}
