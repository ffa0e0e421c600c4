package cniplugin

import "strings"

// A delegate reports an error of the kernel as text, mostly without what it was for. hints has what is added for
// people: the likely cause, and what to do. Nothing else depends on these texts.
func hints() []struct{ text, hint string } {
	return []struct{ text, hint string }{
		{"operation not permitted", "the delegate lacks a right: the runtime must run it as root with CAP_NET_ADMIN " +
			"and CAP_SYS_ADMIN; if it does, a security module refuses it, see dmesg"},
		{"permission denied", "the delegate lacks a right: the runtime must run it as root; if it does, a security " +
			"module or a read-only /proc/sys refuses it, see dmesg"},
		{"numerical result out of range", "a name or number is too large: an interface name has at most 15 " +
			"characters (delegate.bridge, and CNI_IFNAME)"},
		{"exchange full", "a bridge has at most 1023 ports: delete containers, or name another bridge as " +
			"delegate.bridge"},
		{"file exists", "something has this name or address already: see \"ip -details link\", \"ip address\" and " +
			"\"ip route\" on the node and in the container's namespace, and remove what no container uses"},
		{"no such device", "an interface vanished meanwhile: find what removes it with \"ip monitor link\"; " +
			"the runtime's next try makes it again"},
		{"device or resource busy", "the interface belongs to another device, such as a bond or another bridge: see " +
			"\"ip -details link\""},
		{"operation not supported", "this kernel lacks a feature of the delegate: load its modules (bridge, veth), " +
			"and see dmesg"},
		{"address family not supported", "this kernel runs without IPv6: start it without ipv6.disable=1, or disable " +
			"IPv6 in the network config"},
		{"network is unreachable", "a route's gateway is in no subnet of the interface: see ipam.routes in the " +
			"network configuration"},
		{"no space left on device", "the file system is full, or out of inodes: see \"df\" and \"df -i\" for " +
			reservationDir},
		{"read-only file system", "a file system is mounted read-only: " + reservationDir +
			" and /proc/sys must be writable"},
		{"is a directory", "a directory is in the place of a file: remove it"},
		{"not a directory", "a file is in the place of a directory: remove it"},
		{"too many open files", "raise the limit of the runtime (ulimit -n) or fs.file-max"},
		{"cannot allocate memory", "the node is out of memory"},
		{"no buffer space available", "the kernel's neighbour or route table is full: raise " +
			"net.ipv4.neigh.default.gc_thresh3 and net.ipv6.route.max_size"},
	}
}

// withHint adds what is known about the error of the kernel that a text has.
func withHint(err error, text string) error {
	text = strings.ToLower(text)
	for _, h := range hints() {
		if strings.Contains(text, h.text) {
			return withDetail(err, h.hint)
		}
	}
	return err
}
