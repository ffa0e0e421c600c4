package kernel

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/userspace"
)

// kindTun is the kind of a device that a user-space WireGuard makes.
const kindTun = "tun"

// servesWireGuard reports whether a device that is desired as a WireGuard device is one of a user-space WireGuard. One
// that carries our alias was, and its program may work on without its socket: it is reported when it is read, and the
// program is ended if it is ours, see [userspace.Keeper.Read].
func (k *Kernel) servesWireGuard(name string, have network.Link) bool {
	if have.Kind != kindTun || k.tables.Links.Get(name).Want.Kind != network.KindWireGuard ||
		k.wireGuards.processes.Starting(name) {
		return false
	}
	info, err := os.Stat(userspace.Socket(name))
	return err == nil && info.Mode()&os.ModeSocket != 0 || k.tables.Ownership().OwnsAlias(have.Alias)
}

// renewTun looks again at devices that were no WireGuard device when they were reported: a user-space WireGuard makes
// its device first, and then the socket.
func (k *Kernel) renewTun() {
	for name, c := range k.tables.Links.All {
		if c.Wanted && c.Present && c.Want.Kind == network.KindWireGuard && k.servesWireGuard(name, c.Have) {
			c.Have.Kind = network.KindWireGuard
			k.tables.Links.Observe(name, c.Have)
		}
	}
}

// replyOf says what the error of a read says of the process that serves the device.
func replyOf(err error) userspace.Reply {
	switch {
	case errors.Is(err, errNoAnswer):
		return userspace.NoAnswer
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return userspace.NoSocket
	}
	return userspace.Answered
}
