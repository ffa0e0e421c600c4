// Package program serves one WireGuard device in user space (wireguard-go): it makes a tun device, and a unix socket by
// which the device is configured. The daemon starts it in a process of its own where the kernel has no WireGuard: see
// package userspace.
package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/selvage-net/selvage/network/userspace"
)

// firstMTU is the device's until the daemon sets another one.
const firstMTU = 1420

// predecessorTime is how long another program may take to leave the socket: one whose device was deleted is ending.
const predecessorTime = 5 * time.Second

// Run serves the device that args name, until ctx ends or the device is deleted: the device ends with the process, and
// the process with the device. Once the device can be configured, Run prints [userspace.Ready] and closes the standard
// output. The standard error gets little: see [logger].
func Run(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] == "" || filepath.Base(args[0]) != args[0] {
		return fmt.Errorf("usage: %s DEVICE", userspace.ProgramName)
	}
	name := args[0]
	_ = os.WriteFile("/proc/self/comm", []byte(userspace.Comm), 0) // for ps; the name is at most 15 characters long
	unix.Umask(0o077)                                              // of the socket: it takes and gives keys
	t, err := tun.CreateTUN(name, firstMTU)
	if err != nil {
		return explain(name, err)
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), logger(os.Stderr))
	defer d.Close()
	listener, err := listen(userspace.Socket(name))
	if err != nil {
		return err
	}
	defer listener.Close()
	go accept(listener, d)
	fmt.Println(userspace.Ready)
	os.Stdout.Close() // the daemon waits for the end of it
	select {
	case <-ctx.Done():
	case <-d.Wait():
	}
	return nil
}

// accept serves the socket until it is closed.
func accept(l net.Listener, d *device.Device) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptor is free, for instance
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go d.IpcHandle(c)
	}
}

// listen listens on a unix socket. One that a killed program left is removed. A program that still listens there is
// waited for: it would remove the new socket at its end.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for until := time.Now().Add(predecessorTime); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(until) {
			return nil, fmt.Errorf("another program listens at %s: stop it", path)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

// explain adds to an error what to do. The library's is without an errno if the file does not exist.
func explain(name string, err error) error {
	const file = "/dev/net/tun"
	if _, missing := os.Stat(file); missing != nil {
		err = missing
	}
	what := ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		what = "load the module with \"modprobe tun\"; under systemd, install the drop-in wireguard-userspace.conf; " +
			"in a container, mount " + file + " from the host"
	case errors.Is(err, fs.ErrPermission):
		what = "give selvaged CAP_NET_ADMIN and access to " + file + ": under systemd by the drop-in " +
			"wireguard-userspace.conf, in a container by a rule for the character device 10:200"
	case errors.Is(err, unix.EBUSY):
		what = "another program has a device of this name: stop it, or delete the device"
	case errors.Is(err, unix.EINVAL):
		what = "a device of this name and another kind exists: delete it, or rename it"
	default:
		return fmt.Errorf("make the device %s on %s: %w", name, file, err)
	}
	return fmt.Errorf("make the device %s on %s: %w; %s", name, file, err, what)
}
