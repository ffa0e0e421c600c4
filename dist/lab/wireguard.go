package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wireGuardPause is how long a program that has ended is not started: systemd's default too (RestartSec in
// systemd.service(5)).
const wireGuardPause = 100 * time.Millisecond

// servedWireGuards returns the devices that programs are to serve: all, or none if the kernel has WireGuard, which
// kernelHas tells.
func (o Options) servedWireGuards(kernelHas func() (bool, error)) ([]string, error) {
	if len(o.WireGuard) == 0 {
		return nil, nil
	}
	has, err := kernelHas()
	if err != nil || has {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.Bin, "wireguard")); err != nil {
		return nil, fmt.Errorf("this kernel has no WireGuard, so a lab needs a program that serves %q in user space: "+
			"%w: build it with make bin/wireguard, or load the kernel's module wireguard", o.WireGuard, err)
	}
	return o.WireGuard, nil
}

// kernelHasWireGuard tries to make a device where the lab is, and removes it.
func kernelHasWireGuard() (bool, error) {
	link := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "wireguard-try"}}
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return false, fmt.Errorf("try whether this kernel has WireGuard: %w", err)
	}
	return true, nil
}

// WireGuardProgram serves a WireGuard device of a node in user space (dist/wireguard). When it ends, because the device
// was deleted for instance, the lab starts it again after 100 ms, as an init system would. The device is then a new
// one.
type WireGuardProgram struct {
	node   *Node
	device string
	argv   []string
	log    string
	end    chan struct{} // closed when it is not to be started again
	ended  chan struct{} // closed when nothing runs any more

	mu     sync.Mutex
	runs   int // how often it was started
	failed error
}

// serveWireGuard starts the program for a device, and waits until it serves that. The daemon may then configure it.
func (n *Node) serveWireGuard(ctx context.Context, device, log, bin string) error {
	w := &WireGuardProgram{node: n, device: device, log: log, argv: []string{filepath.Join(bin, "wireguard"), device},
		end: make(chan struct{}), ended: make(chan struct{})}
	first, err := startProcess(n.do, w.log, w.argv)
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	w.runs = 1
	if err := poll(ctx, first.done, w.serves); err != nil {
		first.kill()
		return w.explain(err)
	}
	n.wireGuards = append(n.wireGuards, w)
	go w.supervise(first)
	return nil
}

// supervise starts the program again whenever it ends.
func (w *WireGuardProgram) supervise(p *process) {
	defer close(w.ended)
	for {
		select {
		case <-p.done:
		case <-w.end:
			p.kill()
			return
		}
		select {
		case <-time.After(wireGuardPause):
		case <-w.end:
			return
		}
		next, err := startProcess(w.node.do, w.log, w.argv)
		w.mu.Lock()
		w.runs++
		w.failed = err
		w.mu.Unlock()
		if err != nil {
			return
		}
		p = next
	}
}

// close ends the program for good.
func (w *WireGuardProgram) close() {
	close(w.end)
	<-w.ended
}

// WireGuardProgram returns the program that serves a device of the node; nil: none does, the kernel has WireGuard.
func (n *Node) WireGuardProgram(device string) *WireGuardProgram {
	for _, w := range n.wireGuards {
		if w.device == device {
			return w
		}
	}
	return nil
}

// Runs returns how often the program was started.
func (w *WireGuardProgram) Runs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs
}

// WaitRun waits until the program was started run times, and serves the device.
func (w *WireGuardProgram) WaitRun(ctx context.Context, run int) error {
	err := poll(ctx, w.ended, func() error {
		if now := w.Runs(); now < run {
			return fmt.Errorf("it was started %d times", now)
		}
		return w.serves()
	})
	if err != nil {
		return w.explain(err)
	}
	return nil
}

// serves returns why the device cannot be configured yet. The socket is the last thing that the program makes, so with
// it the device is there as well.
func (w *WireGuardProgram) serves() error {
	return w.node.do(func() error {
		c, err := net.Dial("unix", "/var/run/wireguard/"+w.device+".sock")
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// explain adds to an error of waiting what the program printed.
func (w *WireGuardProgram) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Errorf("%s: wait for the program that serves %s: %w%s", w.node.name, w.device,
		errors.Join(err, w.failed), tail(w.log, 15))
}
