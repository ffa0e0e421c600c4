// Package cniplugin is the CNI plugin that attaches containers to the overlay.
//
// It makes no interface itself. The daemon writes a subnet file ([subnet.File]): which part of the overlay this node
// has, and the MTU. The plugin puts that together with the network configuration that the container runtime passes, and
// has the result carried out by a delegate, usually the reference plugins bridge and host-local:
//
//	runtime ── ADD, network configuration ──▶ selvage ── ADD, rendered configuration ──▶ bridge ──▶ host-local
//	                        /run/flannel/subnet.env ──┘  └── rendered configuration ──▶ /var/lib/cni/flannel/…
//
// The network configuration is that of flannel's plugin, so the binary may be installed as "flannel" too:
//
//   - config.go reads it,
//   - render.go makes the delegate's configuration from it and the subnet file, and is pure,
//   - state.go keeps what was rendered at ADD, since DEL must undo what ADD did, whatever the files say by then,
//   - delegate.go runs the delegate,
//   - plugin.go has the verbs.
//
// A container runtime starts this program twice for every container of the node. So nothing heavy is imported, and
// nothing is read but the files named above.
package cniplugin
