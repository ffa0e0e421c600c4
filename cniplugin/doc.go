// Package cniplugin implements the CNI plugin that attaches containers to the overlay.
//
// It creates no interface itself. The daemon writes a subnet file ([subnetfile.File]) with this node's subnet and the
// MTU. The plugin combines it with the network configuration that the container runtime passes, and calls a delegate
// with the result, usually the reference plugins bridge and host-local:
//
//	runtime ── ADD, network configuration ──▶ selvage ── ADD, rendered configuration ──▶ bridge ──▶ host-local
//	                        /run/flannel/subnet.env ──┘  └── rendered configuration ──▶ /var/lib/cni/flannel/…
//
// The network configuration is that of flannel's plugin, so the binary may be installed as "flannel" too:
//
//   - command.go decodes the verb, the network and the container, and prints errors,
//   - config.go reads the network configuration, wait.go the subnet file, names.go validates names,
//   - render.go derives the delegate's configuration from them, and is pure,
//   - state.go stores the configuration rendered at ADD, since DEL must undo ADD even if the files have changed, where
//     flannel's plugin finds it, too,
//   - delegate.go runs the delegate by exec.go, and result.go converts its result,
//   - plugin.go implements ADD and DEL; check.go, status.go and gc.go the verbs of these names,
//   - policy.go reports a pod to a daemon that enforces network policies, and waits for it; socket.go is the client,
//   - bridge.go diagnoses a bridge of another subnet, reservations.go reads host-local's reservations, and netlink.go
//     the kernel's state.
//
// A container runtime starts this program twice for every container of the node. So it imports no heavy package, reads
// only the files named above and the daemon's status file, and queries the kernel only after an error and at CHECK.
// Documentation/cni.md is for
// users.
package cniplugin
