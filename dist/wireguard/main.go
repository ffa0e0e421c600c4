// Command wireguard serves one WireGuard device in user space, as a program that is not the daemon's own: for tests on
// kernels without WireGuard. The daemon itself starts the same program with --wireguard-userspace.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/selvage-net/selvage/network/userspace/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := program.Run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(1)
	}
}
