package image

import (
	"path"
	"path/filepath"
	"time"
)

// Where the programs are in the image of selvage. selvaged install-cni finds the plugins that it installs on the node there:
// its own beside itself, the reference plugins in ../libexec/cni.
const (
	Daemon    = "/usr/local/bin/selvaged"
	Plugin    = "/usr/local/bin/selvage"
	Reference = "/usr/local/libexec/cni"
)

// ReferencePlugins are the reference plugins that a pod needs, in the directory cni beside the other binaries.
func ReferencePlugins() []string { return []string{"bridge", "host-local", "loopback", "portmap"} }

// Selvage says what is in the image of selvage: the static binaries from a directory.
func Selvage(arch, dir, version string, created time.Time) Spec {
	files := []File{
		{Path: Daemon, From: filepath.Join(dir, "selvaged")},
		{Path: Plugin, From: filepath.Join(dir, "selvage")},
	}
	for _, name := range ReferencePlugins() {
		files = append(files, File{Path: path.Join(Reference, name), From: filepath.Join(dir, "cni", name)})
	}
	return Spec{
		OS: "linux", Arch: arch, Created: created,
		Files:   files,
		Command: []string{Daemon},
		Env:     []string{"PATH=/usr/local/bin"},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "selvage",
			"org.opencontainers.image.description": "a VXLAN overlay network for containers: the daemon and the CNI plugin",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     version,
		},
	}
}
