package install

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// referencePlugins are those of github.com/containernetworking/plugins that a pod needs: the network configuration
// names bridge, host-local and portmap, and the runtime itself calls loopback.
func referencePlugins() []string { return []string{"bridge", "host-local", "loopback", "portmap"} }

// referenceModule is the module that they come from, which every Go program carries.
const referenceModule = "github.com/containernetworking/plugins"

// sumsFile, in the directory of plugins, has the digests of the reference plugins that this package installed there,
// as sha256sum(1) writes them. A file with another digest belongs to another program.
const sumsFile = ".selvage.sha256"

// installReference installs the reference plugins that the runtime's directory lacks, and upgrades those that it
// installed before. A plugin of another program stays as it is, whatever its version.
func installReference(o Options, r *Report) error {
	if o.Reference == "" {
		return nil
	}
	sums, err := readSums(o)
	if err != nil {
		return err
	}
	for _, name := range referencePlugins() {
		offered, err := os.ReadFile(filepath.Join(o.Reference, name))
		if err != nil {
			return err
		}
		version, err := referenceVersion(offered, name)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(o.Reference, name), err)
		}
		target := filepath.Join(o.BinDir, name)
		installed, err := os.ReadFile(target)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && len(installed) == 0: // a power cut left it empty
		case err != nil:
			return err
		case sums[name] != digestOf(installed):
			continue
		case bytes.Equal(installed, offered):
			if err := os.Chmod(target, 0o755); err != nil {
				return err
			}
			continue
		default:
			if was, err := referenceVersion(installed, name); err == nil && olderThan(version, was) && !o.Force {
				r.warn("%s is %s, newer than %s: kept", target, was, version)
				continue
			}
		}
		// The digest first: a plugin without it would be another program's for ever. A digest alone does no harm.
		sums[name] = digestOf(offered)
		if err := writeSums(o, sums); err != nil {
			return err
		}
		if err := replace(target, offered, 0o755); err != nil {
			return err
		}
		r.done("%s is now %s", target, version)
	}
	return nil
}

// removeReference removes the reference plugins that installReference installed and that are unchanged. They stay if
// there is another network configuration, which may use them.
func removeReference(o Options, r *Report) error {
	sums, err := readSums(o)
	if err != nil || len(sums) == 0 {
		return err
	}
	others, err := otherConfigurations(o)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(others) > 0 {
		r.warn("the reference plugins in %s are kept, since %s may use them",
			o.BinDir, filepath.Join(o.ConfDir, others[0]))
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		target := filepath.Join(o.BinDir, name)
		installed, err := os.ReadFile(target)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case digestOf(installed) != sums[name]:
			r.warn("%s was replaced by another program: kept", target)
			continue
		}
		if err := os.Remove(target); err != nil {
			return err
		}
		r.done("%s is removed", target)
	}
	return os.Remove(filepath.Join(o.BinDir, sumsFile))
}

// referenceVersion returns the version of a reference plugin. A program that is not that plugin is an error.
func referenceVersion(content []byte, name string) (string, error) {
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return "", fmt.Errorf("%w: want the reference plugin %s (%s)", err, name, referenceModule)
	}
	if !strings.HasPrefix(info.Path, referenceModule+"/") || filepath.Base(info.Path) != name {
		return "", fmt.Errorf("it is the program %s, want the reference plugin %s (%s)",
			info.Path, name, referenceModule)
	}
	for _, m := range info.Deps { // of a build in a module of its own
		if m.Path == referenceModule {
			return m.Version, nil
		}
	}
	return info.Main.Version, nil
}

func digestOf(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// readSums returns the digests of the plugins that were installed, by name. A line that cannot be read is of no plugin.
func readSums(o Options) (map[string]string, error) {
	sums := map[string]string{}
	data, err := os.ReadFile(filepath.Join(o.BinDir, sumsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if sum, name, ok := strings.Cut(s.Text(), "  "); ok && slices.Contains(referencePlugins(), name) {
			sums[name] = sum
		}
	}
	return sums, nil
}

func writeSums(o Options, sums map[string]string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&text, "%s  %s\n", sums[name], name)
	}
	return replace(filepath.Join(o.BinDir, sumsFile), []byte(text.String()), 0o644)
}
