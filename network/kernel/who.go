package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A notification of a change that was asked for over netlink carries the port id of the socket that asked, but for FDB entries of
// VXLAN devices, and for most changes of links (vxlan_fdb_notify in drivers/net/vxlan/vxlan_core.c says 0). The first socket that a
// process opens gets its process id for that (netlink_autobind in net/netlink/af_netlink.c), as seen in its own pid namespace; what
// others get says nothing.

const (
	// mostPIDs is the largest process id there can be (PID_MAX_LIMIT in include/linux/threads.h).
	mostPIDs = 1 << 22
	// lookupsEach bounds how often it is looked who somebody is within lookupTime: a look takes some 0.2 ms.
	lookupsEach = 20
	lookupTime  = time.Second
)

// senders finds out who sent changes.
type senders struct {
	port  uint32 // of the last one, who is at
	who   string
	began time.Time
	looks int // since then
}

// of says who has a port, in words for people; empty: nobody else, or it cannot be known. It belongs right behind the receipt of a
// message: many who change something end at once.
func (s *senders) of(port uint32) string {
	if port == 0 || port > mostPIDs || int(port) == os.Getpid() {
		return ""
	}
	now := time.Now()
	if now.Sub(s.began) > lookupTime {
		*s = senders{began: now}
	}
	if s.port == port {
		return s.who
	}
	if s.looks++; s.looks > lookupsEach {
		return fmt.Sprintf("pid %d", port)
	}
	s.port, s.who = port, whoIs(port)
	return s.who
}

// whoIs names the process that has the netlink socket with a port: if the process with that id has it, then it was that one.
func whoIs(port uint32) string {
	proc := fmt.Sprintf("/proc/%d/", port)
	comm, err := os.ReadFile(proc + "comm")
	name := strings.Map(func(r rune) rune { // a process can call itself what it likes
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, string(comm))
	// A process that is ending has no files any more a moment before its sockets go, so which of the two it is cannot be told.
	unknown := fmt.Sprintf("pid %d, gone or in a container", port)
	inode := socketOf(port)
	if err != nil || inode == "" {
		return unknown
	}
	switch has, err := hasSocket(proc+"fd", inode); {
	case has:
		return fmt.Sprintf("pid %d (%s)", port, name)
	case errors.Is(err, fs.ErrPermission): // it takes CAP_SYS_PTRACE, which the daemon can do without
		return fmt.Sprintf("pid %d, perhaps %s", port, name)
	}
	return unknown
}

// socketOf finds the inode of the rtnetlink socket with a port in the calling thread's network namespace.
func socketOf(port uint32) (inode string) {
	data, _ := os.ReadFile("/proc/thread-self/net/netlink") // what cannot be read says nothing
	for line := range strings.Lines(string(data)) {
		var socket, rest string
		var family, pid uint32
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		n, _ := fmt.Sscan(line, &socket, &family, &pid, &rest, &rest, &rest, &rest, &rest, &rest, &inode)
		if n == 10 && family == unix.NETLINK_ROUTE && pid == port {
			return inode
		}
	}
	return ""
}

// hasSocket reports whether one of the files in a directory of /proc is the socket with an inode.
func hasSocket(dir, inode string) (bool, error) {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		target, linkErr := os.Readlink(dir + "/" + f.Name())
		if target == "socket:["+inode+"]" {
			return true, nil
		}
		if errors.Is(linkErr, fs.ErrPermission) {
			err = linkErr
		}
	}
	return false, err
}
