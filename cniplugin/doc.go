// Package cniplugin is the CNI plugin that attaches containers to the overlay.
//
// It makes no interface itself. The daemon writes a subnet file ([subnetfile.File]): which part of the overlay this
// node has, and the MTU. The plugin puts that together with the network configuration that the container runtime
// passes, and has the result carried out by a delegate, usually the reference plugins bridge and host-local:
//
//	runtime ── ADD, network configuration ──▶ selvage ── ADD, rendered configuration ──▶ bridge ──▶ host-local
//	                        /run/flannel/subnet.env ──┘  └── rendered configuration ──▶ /var/lib/cni/flannel/…
//
// The network configuration is that of flannel's plugin, so the binary may be installed as "flannel" too:
//
//   - command.go finds out which verb is asked for, of which network and container, and prints errors,
//   - config.go reads the network configuration, wait.go the subnet file, names.go says what is a name,
//   - render.go makes the delegate's configuration of them, and is pure,
//   - state.go keeps what was rendered at ADD, since DEL must undo what ADD did, whatever the files say by then,
//   - delegate.go runs the delegate, by exec.go, and result.go converts what it gave,
//   - plugin.go has ADD and DEL; check.go, status.go and gc.go have the verbs of these names,
//   - bridge.go knows what is wrong with a bridge that is from another subnet, reservations.go what host-local has
//     given away, and netlink.go what the kernel has.
//
// A container runtime starts this program twice for every container of the node. So nothing heavy is imported, nothing
// is read but the files named above, and nothing is asked of the kernel unless something went wrong or CHECK wants to
// know. Documentation/cni.md is for users.
package cniplugin
