// Package sandbox runs a program, a test binary for instance, where it may do what only root may: in a user, mount, pid,
// network, UTS and IPC namespace of its own. No privilege is needed for it, only a kernel that lets an ordinary user make
// user namespaces.
//
//	func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }
//
// Three processes take part, all of them the same executable:
//
//	outside   the one that was started: waits, passes signals on, returns the exit code
//	init      pid 1 of the new pid namespace: mounts, brings lo up, reaps orphans
//	inside    calls run
//
// Whatever happens to any of them, nothing is left behind: when pid 1 of a pid namespace ends, the kernel kills every
// process in it, and with the last process go the namespaces and all that is in them: interfaces, mounts, tmpfs files.
//
// Inside, [NewNet] makes a network namespace and [NewHost] one that also has mounts and a host name of its own, so that
// programs that write below /run and /var/lib can run once for each host. Both work in a nested sandbox too.
package sandbox
