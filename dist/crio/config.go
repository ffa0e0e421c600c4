package crio

import (
	"fmt"

	"github.com/selvage-net/selvage/dist/containerd/cri"
)

// Where things are on each node. /run and /var/lib are the node's own, and so is what is below /etc.
const (
	Socket     = "/run/crio/crio.sock" // on which CRI-O answers to CRI
	configFile = "/etc/crio/crio.conf"
	dropIns    = "/etc/crio/lab.conf.d" // not crio.conf.d, which the machine may have
)

// WithoutPortmap is a network configuration for CRI-O alone: it maps the ports of the host itself and says nothing of them to
// the plugins. That of containerd, with portmap, does as well. Version 1.1.0 of the specification has STATUS and GC.
const WithoutPortmap = `{"cniVersion":"1.1.0","name":"cbr0","plugins":[` +
	`{"type":"selvage","delegate":{"hairpinMode":true,"isDefaultGateway":true}}]}`

// config is CRI-O's configuration. What differs from the defaults, and why:
//
//   - The cgroup driver and conmon's cgroup: no systemd runs on a node.
//   - runc instead of crun, and where it is: it is what the other tests use.
//   - AppArmor: not every machine has it.
//   - The image of pause is one of ours, since there is no registry. By default CRI-O does without pause, unless a pod's
//     containers share their process ids.
//   - The directories of CNI are the defaults, written down.
func config(dir string) string {
	return fmt.Sprintf(`[crio]
log_dir = "/run/pods"
[crio.api]
listen = %q
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
apparmor_profile = "unconfined"
pinns_path = "%s/pinns"
default_runtime = "runc"
[crio.runtime.runtimes.runc]
runtime_root = "/run/runc"
monitor_cgroup = "pod"
[crio.image]
pause_image = %q
pause_command = %q
[crio.network]
network_dir = %q
plugin_dirs = [%q]
`, Socket, dir, cri.Reference, cri.PodProgram, cri.ConfDir, cri.BinDir)
}
