package containerd

import (
	"fmt"

	"github.com/selvage-net/selvage/dist/containerd/cri"
)

// Socket is where containerd answers to CRI. /run and /var/lib are the node's own anyway.
const Socket = "/run/containerd/containerd.sock"

// Reference names the image that [cri.Image] makes.
const Reference = cri.Reference

// Conflist is the network configuration that pods are added with. Version 1.1.0 of the specification is the first that has
// STATUS and GC. containerd 1.6 knows 1.0.0 at most, refuses a result of 1.1.0, and reads cniVersion alone; who knows
// cniVersions takes the highest.
const Conflist = `{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"cbr0","plugins":[` +
	`{"type":"selvage","delegate":{"hairpinMode":true,"isDefaultGateway":true}},` +
	`{"type":"portmap","capabilities":{"portMappings":true}}]}`

// config is containerd's configuration, in the version that 1.6 and 2 both read. What differs from the defaults, and why:
//
//   - The image of the sandbox is one of ours, since there is no registry.
//   - restrict_oom_score_adj: a machine may not let go below its own score, and runc fails then.
//   - AppArmor and the hugetlb controller: not every machine has them.
func (o Options) config() string {
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = %q
    bin_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, Socket, Reference, o.ConfDir, o.BinDir)
}
