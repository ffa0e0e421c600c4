package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A notification of a change made over netlink carries the port ID of the requesting socket, except for FDB entries of
// VXLAN devices and most changes of links (vxlan_fdb_notify in drivers/net/vxlan/vxlan_core.c sets 0). The first socket
// of a process gets the process ID as its port ID (netlink_autobind in net/netlink/af_netlink.c), as seen in its own
// PID namespace; the port IDs of further sockets are arbitrary.

const (
	// maxPID is the largest possible process ID (PID_MAX_LIMIT in include/linux/threads.h).
	maxPID = 1 << 22
	// maxLookups limits the lookups of processes within lookupTime: one takes some 0.2 ms.
	maxLookups = 20
	lookupTime = time.Second
)

// senders identifies the processes that made changes.
type senders struct {
	port    uint32 // of the last sender, named
	name    string
	began   time.Time
	lookups int // since began
}

// of describes the process that has a port ID, for people; empty: this process, or unknown. It has to be called right
// after a message was received: many such processes end at once.
func (s *senders) of(port uint32) string {
	if port == 0 || port > maxPID || int(port) == os.Getpid() {
		return ""
	}
	now := time.Now()
	if now.Sub(s.began) > lookupTime {
		*s = senders{began: now}
	}
	if s.port == port {
		return s.name
	}
	if s.lookups++; s.lookups > maxLookups {
		return fmt.Sprintf("pid %d", port)
	}
	s.port, s.name = port, describe(port)
	return s.name
}

// describe names the process that has the netlink socket with a port ID: the process with that ID, if it has the
// socket.
func describe(port uint32) string {
	proc := fmt.Sprintf("/proc/%d/", port)
	name := commandOf(proc)
	// An ending process has no files any more just before its sockets close, so the two cases look alike.
	unknown := fmt.Sprintf("pid %d, gone or in a container", port)
	inode := socketOf(port)
	if name == "" || inode == "" {
		return unknown
	}
	switch has, err := hasSocket(proc+"fd", inode); {
	case has:
		return fmt.Sprintf("pid %d (%s)", port, name)
	case errors.Is(err, fs.ErrPermission): // this takes CAP_SYS_PTRACE, which is optional
		return fmt.Sprintf("pid %d, perhaps %s", port, name)
	}
	return unknown
}

// commandOf returns the name of the process with a directory of /proc, in printable characters: a process chooses its
// own name. It is empty if the process has ended.
func commandOf(proc string) string {
	comm, _ := os.ReadFile(proc + "/comm")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, string(comm))
}

// socketOf returns the inode of the rtnetlink socket with a port ID in the calling thread's network namespace, or
// nothing.
func socketOf(port uint32) (inode string) {
	rtnetlink, pid := strconv.Itoa(unix.NETLINK_ROUTE), strconv.FormatUint(uint64(port), 10)
	data, _ := os.ReadFile("/proc/thread-self/net/netlink") // unreadable: unknown
	for line := range strings.Lines(string(data)) {
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		if f := strings.Fields(line); len(f) == 10 && f[1] == rtnetlink && f[2] == pid {
			return f[9]
		}
	}
	return ""
}

// hasSocket reports whether one of the files in a directory of /proc is a socket with one of these inodes.
func hasSocket(dir string, inodes ...string) (bool, error) {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		target, linkErr := os.Readlink(dir + "/" + f.Name())
		inode, socket := strings.CutPrefix(target, "socket:[")
		if socket && slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			return true, nil
		}
		if errors.Is(linkErr, fs.ErrPermission) {
			err = linkErr
		}
	}
	return false, err
}
