package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip netns keeps its namespaces too.
const netnsDir = "/run/netns"

// Net is a network namespace with a path. Its lo is down: a CNI runtime brings that up.
type Net struct {
	do   func(func() error) error // runs a function where path is valid
	path string
	fd   int
}

// NewNet makes a network namespace and mounts it below /run/netns.
func NewNet() (*Net, error) { return newNet(onThread) }

func newNet(do func(func() error) error) (*Net, error) {
	n := &Net{do: do, fd: -1}
	err := do(func() error {
		if err := os.MkdirAll(netnsDir, 0o755); err != nil {
			return err
		}
		f, err := os.CreateTemp(netnsDir, "net-")
		if err != nil {
			return err
		}
		f.Close()
		n.path = f.Name()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", n.path, "", unix.MS_BIND, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		n.fd, err = unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return os.NewSyscallError("open", err)
	})
	if err != nil {
		if n.path != "" {
			n.Close()
		}
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

// Path is where the namespace is mounted. For one made by [Host.NewNet] it is valid inside that host only.
func (n *Net) Path() string { return n.path }

// Fd is an open file of the namespace, for requests that name one by it. It is valid until Close.
func (n *Net) Fd() int { return n.fd }

// Do calls fn on a thread of its own that is in the namespace. Sockets that fn opens and processes that it starts belong to
// the namespace for as long as they live; goroutines that it starts do not. A process must not be started with Pdeathsig: the
// thread ends when fn has returned.
func (n *Net) Do(fn func() error) error {
	return n.do(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n.path, err)
		}
		return fn()
	})
}

// Close unmounts the namespace. It ends when nothing uses it any more: no process, no socket, no other mount.
func (n *Net) Close() error {
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
	err := n.do(func() error {
		if err := unix.Unmount(n.path, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // EINVAL: not mounted
			return os.NewSyscallError("umount", err)
		}
		return os.Remove(n.path)
	})
	if err != nil {
		return fmt.Errorf("remove the network namespace %s: %w", n.path, err)
	}
	return nil
}
