package cri

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// Left lists what the node keeps for pods: the addresses that host-local has given away, what the plugin has kept for DEL,
// what libcni has, the bridge's ports, and the network namespaces. Of a node without pods there is nothing.
func (r *Runtime) Left() (left []string, err error) {
	err = r.Node.Do(func() error {
		for _, pattern := range []string{
			"/var/lib/cni/networks/*/*", "/var/lib/cni/flannel/*", "/var/lib/cni/results/*", "/run/netns/*", "/var/run/netns/*",
		} {
			paths, err := filepath.Glob(pattern)
			if err != nil {
				return err
			}
			for _, p := range paths {
				if what, ok := kept(p); ok {
					left = append(left, what)
				}
			}
		}
		ports, err := ports()
		left = append(left, ports...)
		return err
	})
	return left, err
}

// kept says what a file stands for, if it is one that a pod's end should have removed.
func kept(path string) (string, bool) {
	name := filepath.Base(path)
	if strings.HasPrefix(path, "/var/lib/cni/networks/") {
		_, err := netip.ParseAddr(name) // beside them are a lock and the last address given
		return path, err == nil
	}
	if strings.HasPrefix(path, "/var/run/") { // the same as /run
		info, err := os.Lstat("/var/run")
		return path, err == nil && info.Mode()&fs.ModeSymlink == 0
	}
	return path, !strings.HasSuffix(name, ".lock") && name != "lock"
}

// ports lists the ports of bridges.
func ports() (list []string, err error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().MasterIndex != 0 {
			list = append(list, "port "+l.Attrs().Name)
		}
	}
	return list, nil
}
