package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Auto as a directory stands for the one that the node's container runtime is configured to use.
const Auto = "auto"

// A runtime is a container runtime whose configuration file says where it looks for CNI plugins and configurations.
type runtime struct {
	name, config string
	// shared is set for a runtime that may be installed beside a distribution of Kubernetes that brings its own, as
	// Docker's packages install containerd. It counts only if there is no other.
	shared bool
	// stable rewrites a path that changes with each upgrade.
	stable func(string) string
}

// runtimes are those that Auto knows. The distributions write the file at each start from a template. k3s and RKE2
// leave out the section about CNI if they do not run flannel themselves; containerd's defaults are in force then.
func runtimes() []runtime {
	return []runtime{
		{name: "k3s", config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"},
		{name: "RKE2", config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"},
		{name: "MicroK8s", config: "/var/snap/microk8s/current/args/containerd.toml", stable: func(dir string) string {
			return snapRevision.ReplaceAllString(dir, "/var/snap/microk8s/current/")
		}},
		{name: "containerd", config: "/etc/containerd/config.toml", shared: true},
	}
}

// snapRevision is the directory of one revision of the snap; "current" is a link to the one in use.
var snapRevision = regexp.MustCompile(`^/var/snap/microk8s/[^/]+/`)

// resolve replaces [Auto]. A directory that is named stays as it is, also beside one that is not.
func (o Options) resolve(r *Report) (Options, error) {
	if o.BinDir != Auto && o.ConfDir != Auto {
		return o, nil
	}
	found, err := o.findRuntime()
	if err != nil {
		return o, fmt.Errorf("find the container runtime's CNI directories: %w", err)
	}
	path := o.onNode(found.config)
	data, err := os.ReadFile(path)
	if err != nil {
		return o, fmt.Errorf("find the container runtime's CNI directories: %w", err)
	}
	confDir, binDir, err := cniDirs(string(data))
	if err != nil {
		return o, fmt.Errorf("%s: %w: name the directories with --cni-conf-dir and --cni-bin-dir", path, err)
	}
	for _, dir := range []*string{&confDir, &binDir} {
		if found.stable != nil {
			*dir = found.stable(*dir)
		}
		*dir = o.onNode(*dir)
	}
	if o.ConfDir == Auto {
		o.ConfDir = confDir
	}
	if o.BinDir == Auto {
		o.BinDir = binDir
	}
	r.done("%s (%s) has its CNI configurations in %s and plugins in %s", found.name, path, o.ConfDir, o.BinDir)
	return o, nil
}

// onNode is a path of the node as this process sees it.
func (o Options) onNode(path string) string { return filepath.Join(o.root, path) }

// findRuntime returns the runtime whose configuration file exists.
func (o Options) findRuntime() (found runtime, err error) {
	var several, looked []string
	for _, r := range runtimes() {
		path := o.onNode(r.config)
		looked = append(looked, path)
		switch _, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return found, err
		case r.shared && len(several) > 0:
		default:
			found, several = r, append(several, fmt.Sprintf("%s (%s)", r.name, path))
		}
	}
	const name = "name the directories with --cni-conf-dir and --cni-bin-dir"
	switch len(several) {
	case 1:
		return found, nil
	case 0:
		return found, fmt.Errorf("none of %s exists: %s", strings.Join(looked, ", "), name)
	default:
		return found, fmt.Errorf("this node has %s, and which of them runs its pods is not known: %s",
			strings.Join(several, " and "), name)
	}
}

var (
	tomlComment = regexp.MustCompile(`(?m)^\s*#.*$`)
	tomlTable   = regexp.MustCompile(`(?m)^\s*\[([^\[\]\n]+)\][ \t]*(?:#.*)?$`)
	// The CRI plugin's table for CNI: of containerd's configuration version 3, 2 and 1.
	tomlCNI = regexp.MustCompile(`^\s*plugins\s*\.\s*` +
		`(?:['"]io\.containerd\.(?:cri\.v1\.runtime|grpc\.v1\.cri)['"]|cri)` +
		`\s*\.\s*cni\s*$`)
	tomlDirs   = regexp.MustCompile(`(?m)^\s*(conf_dir|bin_dirs?)\s*=\s*(.*)$`)
	tomlString = regexp.MustCompile(`^\[?\s*(?:"([^"\\]*)"|'([^']*)')`)
)

// cniDirs returns the directories that a configuration of containerd's names, or containerd's defaults. Of several
// directories of plugins it is the first. Files that the configuration imports are not read.
func cniDirs(config string) (confDir, binDir string, err error) {
	config = tomlComment.ReplaceAllString(config, "")
	confDir, binDir = DefaultConfDir, DefaultBinDir
	tables := tomlTable.FindAllStringSubmatchIndex(config, -1)
	for i, table := range tables {
		if !tomlCNI.MatchString(config[table[2]:table[3]]) {
			continue
		}
		end := len(config)
		if i+1 < len(tables) {
			end = tables[i+1][0]
		}
		for _, m := range tomlDirs.FindAllStringSubmatch(config[table[1]:end], -1) {
			key, value := m[1], tomlString.FindStringSubmatch(m[2])
			if value == nil {
				return "", "", fmt.Errorf("the value of %s, %s, cannot be read", key, m[2])
			}
			switch dir := value[1] + value[2]; {
			case dir == "": // containerd 2 has an empty bin_dir beside bin_dirs
			case !filepath.IsAbs(dir):
				return "", "", fmt.Errorf("%s is %q, want an absolute path", key, dir)
			case key == "conf_dir":
				confDir = dir
			default:
				binDir = dir
			}
		}
	}
	return confDir, binDir, nil
}
