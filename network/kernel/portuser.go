package kernel

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
)

// portInUse says who has the UDP port of a device that the kernel refuses to set up, for an error, and what to do. A
// device is looked for first: the kernel's own sockets belong to no process.
func (k *Kernel) portInUse(name string, want network.LinkSettings) string {
	settings, ok := want.(network.VXLAN)
	if !ok {
		return "the UDP port is in use"
	}
	const other = "or set another Backend.Port in the network config, for all nodes"
	if links, err := k.handle.LinkList(); err == nil {
		for _, l := range links {
			if port, how := tunnelPort(l); port == settings.Port && l.Attrs().Name != name {
				return fmt.Sprintf("UDP port %d is in use by device %s (%s%s): delete it (ip link delete %s), %s",
					settings.Port, l.Attrs().Name, l.Type(), how, l.Attrs().Name, other)
			}
		}
	}
	var inodes []string
	for _, file := range []string{"udp", "udp6"} {
		inodes = append(inodes, udpSockets("/proc/thread-self/net/"+file, settings.Port)...)
	}
	if user := socketUser(inodes); user != "" {
		return fmt.Sprintf("UDP port %d is in use by %s: stop it, %s", settings.Port, user, other)
	}
	return fmt.Sprintf("UDP port %d is in use: \"ss -lunp\" may show by which process, %s", settings.Port, other)
}

// tunnelPort returns the UDP port on which a tunnel device receives, and what to say of it beside its kind; 0: it is no
// such device, or is down and has no socket.
func tunnelPort(l netlink.Link) (port uint16, how string) {
	if l.Attrs().Flags&net.FlagUp == 0 {
		return 0, ""
	}
	switch l := l.(type) {
	case *netlink.Vxlan:
		if l.FlowBased {
			how = ", external"
		}
		return uint16(l.Port), how
	case *netlink.Geneve:
		if l.FlowBased {
			how = ", external"
		}
		return l.Dport, how
	case *netlink.BareUDP:
		return l.Port, ""
	}
	return 0, ""
}

// udpSockets returns the inodes of the sockets that are bound to a port; one of the kernel's own has the inode 0.
func udpSockets(table string, port uint16) (inodes []string) {
	data, _ := os.ReadFile(table) // unreadable: unknown
	for line := range strings.Lines(string(data)) {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		_, text, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(text, 16, 16); err == nil && uint16(n) == port {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

// socketUser describes a process that has one of the sockets; empty: none is found.
func socketUser(inodes []string) string {
	if len(inodes) == 0 {
		return ""
	}
	if !slices.ContainsFunc(inodes, func(inode string) bool { return inode != "0" }) {
		return "the kernel itself (a tunnel, perhaps of WireGuard, L2TP or FOU)"
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		for _, inode := range inodes {
			if has, _ := hasSocket("/proc/"+p.Name()+"/fd", inode); has {
				return fmt.Sprintf("pid %s (%s)", p.Name(), commandOf("/proc/"+p.Name()))
			}
		}
	}
	return "a process that cannot be seen from here, perhaps of another container"
}
