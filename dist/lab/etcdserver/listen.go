package etcdserver

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// listens reports whether it is the process pid that listens at an address of its network namespace. Another etcd can
// have taken the port meanwhile, and answers that it is healthy.
func listens(pid int, address string) bool {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	var sockets []string
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			sockets = append(sockets, target)
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			// proc(5): 1 is the local address, with the port in hexadecimal digits; 3 the state; 9 the inode.
			const listening = "0A"
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", addr.Port())) &&
				slices.Contains(sockets, "socket:["+f[9]+"]") {
				return true
			}
		}
	}
	return false
}
