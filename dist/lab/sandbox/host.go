package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Host is what a program takes for a machine of its own: a network, a mount and a UTS namespace. /run and /var/lib are
// private and empty at first; all other files are shared.
type Host struct {
	name string
	ns   []namespace
}

// namespace is one namespace of a host, kept alive by an open file.
type namespace struct {
	kind string // as in /proc/PID/ns
	flag int
	fd   int
}

// NewHost makes a host of the given host name, with lo up.
func NewHost(name string) (*Host, error) {
	h := &Host{name: name}
	err := onThread(func() error {
		// CLONE_FS: threads share root and working directory, and a mount namespace must not be entered by one of them alone.
		flags := unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS
		if err := unix.Unshare(flags); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := mountPrivate(); err != nil {
			return err
		}
		for _, dir := range []string{"/run", "/var/lib"} {
			if err := cover(dir, "mode=0755"); err != nil {
				return err
			}
		}
		mountSys()
		if err := unix.Sethostname([]byte(name)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
		if err := linkUp("lo"); err != nil {
			return err
		}
		return h.open()
	})
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// open keeps the namespaces of the calling thread.
func (h *Host) open() error {
	for _, ns := range []namespace{
		{kind: "mnt", flag: unix.CLONE_NEWNS}, {kind: "net", flag: unix.CLONE_NEWNET}, {kind: "uts", flag: unix.CLONE_NEWUTS},
	} {
		fd, err := unix.Open("/proc/thread-self/ns/"+ns.kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open", err)
		}
		ns.fd = fd
		h.ns = append(h.ns, ns)
	}
	return nil
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// NetFd is an open file of the network namespace, for requests that name one by it. It is valid until Close.
func (h *Host) NetFd() int {
	for _, ns := range h.ns {
		if ns.flag == unix.CLONE_NEWNET {
			return ns.fd
		}
	}
	return -1
}

// Do calls fn on a thread of its own that is in the host's namespaces, with the same working directory if the host has it.
// What is said of sockets, processes and goroutines at [Net.Do] holds here as well.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("enter host %s: %w", h.name, err)
		}
		wd, wdErr := os.Getwd()
		for _, ns := range h.ns {
			if err := unix.Setns(ns.fd, ns.flag); err != nil {
				return fmt.Errorf("enter host %s: setns %s: %w", h.name, ns.kind, err)
			}
		}
		// Entering a mount namespace leads to its root.
		if wdErr == nil {
			unix.Chdir(wd)
		}
		return fn()
	})
}

// NewNet makes a network namespace inside the host, a pod's for instance.
func (h *Host) NewNet() (*Net, error) {
	n, err := newNet(h.Do)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.name, err)
	}
	return n, nil
}

// Close lets go of the namespaces. They end when nothing uses them any more: no process, no socket.
func (h *Host) Close() error {
	var first error
	for _, ns := range h.ns {
		if err := unix.Close(ns.fd); err != nil && first == nil {
			first = fmt.Errorf("close host %s: %w", h.name, err)
		}
	}
	h.ns = nil
	return first
}
