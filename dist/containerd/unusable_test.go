package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// testUnusable deletes the overlay device of a node that is ready, and keeps the daemon from creating it again. The subnet
// file stays, so the plugin learns of it from the status file beside it, and reports it to the runtime.
func testUnusable(t *testing.T, c *cluster) {
	r := c.At[0]
	c.Ready(t, r, true)
	foreign := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "foreign"}, VxlanId: 1, Port: 8472}
	daemon := r.Node.PID()
	if daemon == 0 {
		t.Fatal("the daemon does not run")
	}
	if err := unix.Kill(daemon, unix.SIGSTOP); err != nil { // else it would be quicker
		t.Fatal(err)
	}
	c.Eventually(t, "the stop of all of the daemon's threads", func() error { return stopped(daemon) })
	err := r.Node.Do(func() error {
		own, err := netlink.LinkByName("flannel.1")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkDel(own), netlink.LinkAdd(foreign))
	})
	if err := errors.Join(err, unix.Kill(daemon, unix.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	if c.asking {
		c.Eventually(t, "NetworkReady", func() error {
			ready, why, err := r.NetworkReady(c.Ctx)
			if err != nil {
				return err
			}
			s, err := r.Node.SubnetStatus()
			if err == nil && (ready || !s.Limited || s.Reason == "" || !strings.Contains(why, s.Reason)) {
				err = fmt.Errorf("NetworkReady is %t (%s), want false and the reason of the status file: %+v", ready, why, s)
			}
			return err
		})
	} else {
		c.Ready(t, r, true) // containerd 1.6 asks nobody
	}
	if err := r.Node.Do(func() error { return netlink.LinkDel(foreign) }); err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "the overlay's device", func() error {
		return r.Node.Do(func() error { _, err := netlink.LinkByName("flannel.1"); return err })
	})
	c.Ready(t, r, true)
	c.Reach(t)
}

// stopped reports as an error which thread of a process still runs: a signal that stops it takes effect later.
func stopped(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("process %d is not there: %w", pid, err)
	}
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if i := strings.LastIndex(string(data), ")"); i < 0 || !strings.HasPrefix(string(data)[i:], ") T") { // proc(5)
			return fmt.Errorf("%s: %s", path, data)
		}
	}
	return nil
}
