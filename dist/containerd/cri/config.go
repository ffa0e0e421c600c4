package cri

// Where CNI plugins and network configurations are on each node: /etc and /opt are its own there, see [PrepareMounts].
const (
	ConfDir  = "/etc/cni/net.d"
	BinDir   = "/opt/cni/bin"
	ConfFile = ConfDir + "/10-selvage.conflist"
)

// Plugins names the CNI plugins that the network configurations of the labs need, below the directory that make build and
// make tools write to.
func Plugins() []string {
	return []string{"selvage", "cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap"}
}
