package kernel

import (
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
)

// Permitted returns an error unless this process may change the network namespace of the calling thread. It asks the
// kernel, as the process's own capabilities say nothing of a namespace that belongs to another user namespace: the
// kernel checks them before it looks for the device of this entry, which does not exist.
func Permitted() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	defer handle.Close()
	err = handle.NeighDel(&netlink.Neigh{LinkIndex: math.MaxInt32, IP: net.IPv4(192, 0, 2, 1)})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return errno.Explain(errno.Device, fmt.Errorf("the network cannot be changed: %w", err))
	}
	return nil // ENODEV, as a rule
}
