// Command wireguard serves one WireGuard device in user space, for tests on kernels without WireGuard: it makes a tun
// device, and a UNIX socket in /var/run/wireguard by which the device is configured. It is a module of its own, so that
// the product does not depend on what it needs.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: wireguard DEVICE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(1)
	}
}

// serve serves a device until ctx ends or the device is deleted. The device ends with it.
func serve(ctx context.Context, name string) error {
	const mtu = 1420
	t, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return fmt.Errorf("make the device %s on /dev/net/tun: %w", name, err)
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "("+name+") "))
	defer d.Close()
	const dir = "/var/run/wireguard"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, name+".sock")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // of a program that was killed
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go d.IpcHandle(c)
		}
	}()
	select {
	case <-ctx.Done():
	case <-d.Wait():
	}
	return nil
}
