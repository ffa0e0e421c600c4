package image

import (
	"path/filepath"
	"time"
)

// Where the programs are in the image of selvage. The daemon finds the plugin that it installs on the node beside itself.
const (
	Daemon = "/usr/local/bin/selvaged"
	Plugin = "/usr/local/bin/selvage"
)

// Selvage says what is in the image of selvage: the static binaries from a directory.
func Selvage(arch, dir, version string, created time.Time) Spec {
	return Spec{
		OS: "linux", Arch: arch, Created: created,
		Files: []File{
			{Path: Daemon, From: filepath.Join(dir, "selvaged")},
			{Path: Plugin, From: filepath.Join(dir, "selvage")},
		},
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
