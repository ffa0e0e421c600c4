package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
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
