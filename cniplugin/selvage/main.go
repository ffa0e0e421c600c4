// Command selvage is the CNI plugin of the selvage overlay network. A container runtime runs it; see package cniplugin.
// It may be installed as "flannel" where network configurations name that.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/selvage-net/selvage/cniplugin"
)

func main() {
	plugin := &cniplugin.Plugin{Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(plugin.Main(context.Background(), about))
}

// about is printed when the program is run by hand.
func about() string {
	built := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		built = info.Main.Version
	}
	return "CNI plugin selvage " + built + `
It attaches containers to the overlay network that selvaged keeps on this node. Not to be run by hand: a container
runtime runs it, from its CNI bin directory (often /opt/cni/bin), when a network configuration (often in
/etc/cni/net.d) says "type": "selvage". The smallest one is:
  {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "selvage", "delegate": {"isDefaultGateway": true}}]}
It reads /run/flannel/subnet.env, which selvaged writes, and needs the plugins bridge and host-local beside it.`
}
