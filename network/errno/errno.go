// Package errno explains errors of the kernel: the same number means different things for different operations.
// [Explain] adds what it means for an operation, and what to do.
package errno

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Operation is what the kernel was asked to do.
type Operation uint8

// The operations.
const (
	Device     Operation = iota // create, change or delete a device
	Address                     // of a device
	Route                       // a route or nexthop object
	Neighbour                   // a neighbour or FDB entry
	Sysctl                      // set a kernel setting
	NFTables                    // read or change packet filter rules: nf_tables, or the legacy iptables
	RawSocket                   // open a raw or packet socket
	ListenTCP                   // listen on a TCP port
	ListenUnix                  // listen on a unix socket
	File                        // write a file
)

const (
	needsNetAdmin = "this needs CAP_NET_ADMIN in the network namespace: " +
		"run selvaged as root, or give it the capability " +
		"(systemd: AmbientCapabilities=, Kubernetes: securityContext.capabilities)"
	readOnly = "the file system is mounted read-only: choose another path, or mount it writable"
)

// advice is one row of the table: what an error of an operation means, and what to do.
type advice struct {
	of     []Operation
	errnos []unix.Errno
	text   string
}

// table returns all rows. The first row that matches counts.
func table() []advice {
	netlink := []Operation{Device, Address, Route, Neighbour, NFTables}
	paths := []Operation{ListenUnix, File}
	return []advice{
		{netlink, []unix.Errno{unix.EPERM, unix.EACCES}, needsNetAdmin},
		{netlink, []unix.Errno{unix.ENODEV}, "the device is gone, or has another name"},
		{netlink, []unix.Errno{unix.EAFNOSUPPORT, unix.EPFNOSUPPORT},
			"this kernel runs without the address family: " +
				"start it without ipv6.disable=1, or disable IPv6 in the network config"},
		{[]Operation{Device}, []unix.Errno{unix.EOPNOTSUPP}, "this kernel has no VXLAN (CONFIG_VXLAN, module vxlan)"},
		{[]Operation{Device}, []unix.Errno{unix.EEXIST}, "another device has the name, or the VNI and port"},
		{[]Operation{Device}, []unix.Errno{unix.EBUSY, unix.EADDRINUSE}, "the UDP port is in use"},
		{[]Operation{Device}, []unix.Errno{unix.ERANGE}, "the kernel refuses the name or a value as too long"},
		{[]Operation{Address}, []unix.Errno{unix.EADDRNOTAVAIL}, "IPv6 is disabled on the device (disable_ipv6)"},
		{[]Operation{Address, Route}, []unix.Errno{unix.EEXIST}, "another process has set one in its place"},
		{[]Operation{Route}, []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN},
			"the gateway cannot be reached through the device: it is down, or lacks an address"},
		{[]Operation{Route, Neighbour, NFTables}, []unix.Errno{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT},
			"this kernel lacks the feature: see the kernel options in Documentation/backends.md"},
		{[]Operation{Route}, []unix.Errno{unix.ENOBUFS, unix.ENOMEM},
			"the kernel has no memory for another route: " +
				"see net.ipv6.route.max_size, and the memory limit of the host"},
		{[]Operation{Neighbour}, []unix.Errno{unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC},
			"the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 and that of ipv6"},
		{[]Operation{NFTables}, []unix.Errno{unix.ENOENT},
			"this kernel lacks a part of nf_tables, or the table was removed meanwhile"},
		{[]Operation{NFTables}, []unix.Errno{unix.ENOBUFS, unix.EMSGSIZE}, "the ruleset is too large for one message"},

		{[]Operation{Sysctl}, []unix.Errno{unix.EROFS, unix.EACCES, unix.EPERM},
			"make /proc/sys writable for the daemon, or set it before the daemon starts"},
		{[]Operation{Sysctl}, []unix.Errno{unix.ENOENT},
			"this kernel has no such setting now: its module is not loaded, or the device is gone"},
		{[]Operation{Sysctl}, []unix.Errno{unix.EINVAL}, "the kernel refuses the value"},

		{[]Operation{RawSocket}, []unix.Errno{unix.EPERM, unix.EACCES}, "this needs CAP_NET_RAW: run it as root"},

		{[]Operation{ListenTCP}, []unix.Errno{unix.EADDRINUSE},
			"another process listens there (ss -ltnp shows it): stop it, or choose another port"},
		{[]Operation{ListenTCP}, []unix.Errno{unix.EADDRNOTAVAIL}, "no interface of this host has the address"},
		{[]Operation{ListenTCP}, []unix.Errno{unix.EACCES, unix.EPERM},
			"a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE: choose a higher one"},
		{[]Operation{ListenUnix}, []unix.Errno{unix.EADDRINUSE}, "another process listens there: choose another path"},

		{paths, []unix.Errno{unix.EROFS}, readOnly},
		{paths, []unix.Errno{unix.EACCES, unix.EPERM},
			"the user of the daemon may not write there: run it as root, or choose another path"},
		{paths, []unix.Errno{unix.ENOSPC, unix.EDQUOT}, "the file system is full: free space on it"},
		{paths, []unix.Errno{unix.ENAMETOOLONG}, "the path is too long: choose a shorter one"},
		{paths, []unix.Errno{unix.ENOTDIR}, "a part of the path is a file: remove it, or choose another path"},
		{paths, []unix.Errno{unix.EISDIR}, "a directory is there: remove it, or choose another path"},
		{paths, []unix.Errno{unix.EEXIST, unix.ENOTEMPTY},
			"something else is there, such as a directory or a link that leads nowhere: " +
				"remove it, or choose another path"},
		{append(paths, RawSocket, NFTables, ListenTCP), []unix.Errno{unix.EMFILE, unix.ENFILE},
			"too many files are open: raise the limit (ulimit -n, fs.file-max)"},
		{paths, []unix.Errno{unix.EIO}, "the disk fails: see the kernel's log"},
	}
}

// explained is an error that Explain has handled.
type explained struct{ error }

// Unwrap returns the error with its cause.
func (e explained) Unwrap() error { return e.error }

// Explain returns an error of an operation with what it means and what to do, if that is known. The result wraps err.
// An error that is explained already is returned unchanged.
func Explain(op Operation, err error) error {
	var number unix.Errno
	var before explained
	if err == nil || errors.As(err, &before) || !errors.As(err, &number) {
		return err
	}
	for _, a := range table() {
		if slices.Contains(a.of, op) && slices.Contains(a.errnos, number) {
			return explained{fmt.Errorf("%w; %s", err, a.text)}
		}
	}
	return err
}

// Written explains an error of replacing the file at path. Such a file is first written under a random name: the error
// names the file itself, so that two attempts fail alike.
func Written(path string, err error) error {
	var of *fs.PathError
	var between *os.LinkError
	switch {
	case errors.As(err, &of):
		err = fmt.Errorf("write %s: %w", path, of.Err)
	case errors.As(err, &between):
		err = fmt.Errorf("write %s: %w", path, between.Err)
	}
	return Explain(File, err)
}

// With marks an error as explained, with a text of its own.
func With(err error, text string) error { return explained{fmt.Errorf("%w; %s", err, text)} }
