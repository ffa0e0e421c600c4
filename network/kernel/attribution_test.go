package kernel_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

// deleteVariable has the test binary be a process that deletes a route.
const deleteVariable = "SELVAGE_TEST_DELETES"

// deleteRoute deletes the route that the variable names, says so, and ends with its input.
func deleteRoute() {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // which keeps its socket open
	if err == nil {
		err = h.RouteDel(&netlink.Route{Dst: dst(os.Getenv(deleteVariable))})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("deleted")
	_, _ = io.ReadAll(os.Stdin)
	os.Exit(0)
}

// TestWho: a repair says which process made it necessary, if that still runs, and of one in a container no more than
// that.
func TestWho(t *testing.T) {
	inNamespace(t, func(ns *sandbox.Net) error {
		n, err := open(wanted(3, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		ready, woken, watched := make(chan struct{}), make(chan struct{}, 1), make(chan error, 1)
		go func() {
			watched <- ns.Do(func() error {
				return n.Watch(ctx, func() { close(ready) }, func() {
					select {
					case woken <- struct{}{}:
					default:
					}
				})
			})
		}()
		<-ready
		defer func() {
			cancel()
			if err := <-watched; err != nil {
				t.Error(err)
			}
		}()
		if _, err := n.pass(); err != nil {
			return err
		}
		// What was made just now is told of first, and leads to a read, by which nobody is named.
		if err := n.settled(ctx, woken); err != nil {
			return err
		}
		for _, tt := range []struct {
			name, route string
			flags       uintptr
			want        func(pid int) string
		}{
			{"a process", "10.5.2.0/24", 0, func(pid int) string { return fmt.Sprintf("pid %d (exe)", pid) }},
			{"in a pid namespace of its own", "10.5.3.0/24", syscall.CLONE_NEWPID, func(int) string { return "pid 1, gone or in a container" }},
		} {
			pid, end, err := startDeleting(tt.route, tt.flags)
			if err != nil {
				return err
			}
			r, err := n.repaired(ctx, woken)
			if err := errors.Join(err, end()); err != nil {
				return fmt.Errorf("%s: %w", tt.name, err)
			}
			if r.Kind != "route" || r.Cause != "missing" || r.By != tt.want(pid) {
				t.Errorf("%s: %+v, want %q", tt.name, r, tt.want(pid))
			}
		}
		// Ours does not count: it is nobody else's doing.
		if err := netlink.RouteDel(&netlink.Route{Dst: dst("10.5.4.0/24")}); err != nil {
			return err
		}
		if r, err := n.repaired(ctx, woken); err != nil || r.Count != 1 || r.By != "" {
			t.Errorf("by the daemon's own process: %+v, %v", r, err)
		}
		return nil
	})
}

// startDeleting starts a process that deletes a route and waits until it has; end ends it.
func startDeleting(route string, flags uintptr) (pid int, end func() error, err error) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), deleteVariable+"="+route)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	in, inErr := c.StdinPipe()
	out, outErr := c.StdoutPipe()
	if err := errors.Join(inErr, outErr, c.Start()); err != nil {
		return 0, nil, err
	}
	end = func() error { return errors.Join(in.Close(), c.Wait()) }
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(said) != "deleted" {
		return 0, nil, errors.Join(fmt.Errorf("it says %q, %w", said, err), end())
	}
	return c.Process.Pid, end, nil
}

// settled waits until a device that is made now has been told of: notifications come in order.
func (n *node) settled(ctx context.Context, woken <-chan struct{}) error {
	const last = "last"
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: last}}
	if err := errors.Join(netlink.LinkAdd(link), netlink.LinkSetAlias(link, network.Alias), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	for !n.rec.Tables.Links.Get(last).Present {
		select {
		case <-woken:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := n.Observe(); err != nil {
			return err
		}
	}
	return nil
}

// repaired waits for a repair.
func (n *node) repaired(ctx context.Context, woken <-chan struct{}) (network.Repair, error) {
	for {
		if err := n.Observe(); err != nil {
			return network.Repair{}, err
		}
		if r, err := n.pass(); err != nil || len(r.Repairs) > 0 {
			return append(r.Repairs, network.Repair{})[0], err
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return network.Repair{}, ctx.Err()
		}
	}
}
