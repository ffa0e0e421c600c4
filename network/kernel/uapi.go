package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/userspace"
)

// answered returns an error of a user-space WireGuard as the error number that the program answered with, so that
// errors.Is finds it. The protocol has a field for it (errno, https://www.wireguard.com/xplatform/), but wgctrl puts
// that field into a text: wguser.Client.configureDevice. The sign depends on the program: wireguard-go answers -98.
func answered(err error) error {
	var read *os.SyscallError
	var number int
	if !errors.As(err, &read) {
		return err
	}
	if n, _ := fmt.Sscanf(read.Err.Error(), "wguser: errno=%d", &number); n == 0 {
		return err
	}
	return fmt.Errorf("the user-space WireGuard answers errno %d: %w", number, unix.Errno(max(number, -number)))
}

// explainWireGuard adds to an error of a WireGuard device what it means.
func explainWireGuard(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return errno.With(err, fmt.Sprintf("device %s is no WireGuard device: the kernel does not know it as one, and "+
			"no user-space WireGuard serves it at %s", name, userspace.Socket(name)))
	case errors.Is(err, unix.ECONNREFUSED):
		return errno.With(err, fmt.Sprintf("the user-space WireGuard that served device %s has ended: start it again, "+
			"or remove %s", name, userspace.Socket(name)))
	}
	return err
}
