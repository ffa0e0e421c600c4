package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/subnet"
)

// process is the pid of the daemon's process that serves a device of a node.
func (c *cluster) process(t *testing.T, n *lab.Node, device string) int {
	t.Helper()
	var s userspace.Server
	c.do(t, n, func() error {
		var ok bool
		if s, ok = userspace.At(device); !ok || !s.Ours {
			return fmt.Errorf("%s: %s is served by %+v, want a process of selvage's", n.Name(), device, s)
		}
		return nil
	})
	return s.PID
}

// gone waits until a node does not have a device, nor files of a process that has served it.
func (c *cluster) gone(t *testing.T, n *lab.Node, device string) {
	t.Helper()
	testctx.Eventually(t, func() (left string) {
		c.do(t, n, func() error {
			if _, err := netlink.LinkByName(device); err == nil {
				left += device + " is left; "
			}
			for _, file := range []string{".sock", ".log"} {
				if _, err := os.Lstat("/var/run/wireguard/" + device + file); !errors.Is(err, fs.ErrNotExist) {
					left += fmt.Sprintf("%s is left: %v; ", file, err)
				}
			}
			return nil
		})
		return left
	})
}

// ended waits until a process has ended.
func ended(t *testing.T, pid int) {
	t.Helper()
	testctx.Eventually(t, func() string {
		// A process whose parent has not waited for it, as the sandbox's first one, has no command line.
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(line) > 0 {
			return fmt.Sprintf("process %d still runs: %q", pid, line)
		}
		return ""
	})
}

// userSpace returns how the status describes who serves flannel-wg.
func (c *cluster) userSpace(t *testing.T, n *lab.Node) (status.Status, status.UserSpace) {
	t.Helper()
	s, err := n.Status(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s.Backend == nil || len(s.Backend.Devices) != 1 || s.Backend.Devices[0].UserSpace == nil {
		return s, status.UserSpace{}
	}
	return s, *s.Backend.Devices[0].UserSpace
}

// TestProcess: what becomes of a device when its process is killed, hangs, or has an end with the device. Packets are
// lost only until another process serves the device.
func TestProcess(t *testing.T) {
	c := newCluster(t, nil, wireguardBackend)
	c.probe(t)
	n := c.Nodes()[0]
	c.do(t, n, func() error {
		info, err := os.Stat("/var/run/wireguard")
		if err == nil && info.Mode().Perm() != 0o700 {
			err = fmt.Errorf("the directory of the sockets has the mode %s, want that the owner alone may use it", info.Mode())
		}
		return err
	})
	signal := func(s unix.Signal) func(int) error { return func(pid int) error { return unix.Kill(pid, s) } }
	removeSocket := func(int) error {
		return n.Do(func() error { return os.Remove(userspace.Socket("flannel-wg")) })
	}
	for _, fault := range []struct {
		name        string
		apply       func(pid int) error
		ended, hung int // of the status, after the fault
		lost        int // the same
		log         string
	}{
		{"killed", signal(unix.SIGKILL), 1, 0, 0, "the process that served the device has ended"},
		{"asked to end", signal(unix.SIGTERM), 2, 0, 0, "the process that served the device has ended"},
		{"stopped", signal(unix.SIGSTOP), 2, 1, 0, "did not answer and was killed"},
		{"socket removed", removeSocket, 2, 1, 1, ""}, // too many lines in the log by now
		{"killed while no daemon runs", func(pid int) error {
			n.Kill()
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return err
			}
			return errors.Join(n.Start(), n.WaitReady(c.ctx))
		}, 0, 0, 0, ""},
		{"socket removed while no daemon runs", func(pid int) error {
			n.Kill()
			return errors.Join(removeSocket(pid), n.Start(), n.WaitReady(c.ctx))
		}, 0, 0, 1, "another program removed the socket"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			before := c.process(t, n, "flannel-wg")
			ctx, stop := context.WithCancel(c.ctx)
			type result struct {
				report lab.StreamReport
				err    error
			}
			done := make(chan result, 1)
			go func() {
				r, err := c.Stream(ctx, c.pods[0].Endpoint, c.pods[1].Endpoint, streamEvery)
				done <- result{r, err}
			}()
			if err := fault.apply(before); err != nil {
				t.Fatal(err)
			}
			testctx.Eventually(t, func() string {
				s, u := c.userSpace(t, n)
				counts := u.Ended == fault.ended && u.Hung == fault.hung && u.Lost == fault.lost
				if !u.Ours || u.PID == before || u.PID == 0 || !counts ||
					s.State != status.Ready || len(s.Problems) > 0 || fault.log != "" && len(s.Repairs.Last) == 0 {
					return fmt.Sprintf("%+v, %s, problems %v, want another process than %d, %d ended, %d hung, %d lost", u, s.State,
						s.Problems, before, fault.ended, fault.hung, fault.lost)
				}
				return ""
			})
			c.recover(t)
			ended(t, before)
			testctx.Eventually(t, func() string { // sessions may be made twice at first: both nodes begin one
				short, end := context.WithCancel(c.ctx)
				time.AfterFunc(10*streamEvery, end)
				r, err := c.Stream(short, c.pods[1].Endpoint, c.pods[0].Endpoint, streamEvery)
				if err != nil || r.Lost > 0 {
					return fmt.Sprintf("%s, %v, want none lost", r, err)
				}
				return ""
			})
			stop()
			r := <-done
			if r.err != nil || r.report.Lost == r.report.Sent {
				t.Fatalf("%s, %v, want that packets arrive", r.report, r.err)
			}
			t.Logf("measured: %s", r.report)
			log, err := os.ReadFile(n.LogPath())
			reported := "no user-space WireGuard serves it at " + userspace.Socket("flannel-wg")
			if fault.lost > 0 && !strings.Contains(string(log), reported) {
				t.Errorf("no problem %q in the log:\n%s", reported, log)
			}
			if err != nil || fault.log != "" && !strings.Contains(string(log), fault.log) {
				t.Errorf("%v, want %q in the log:\n%s", err, fault.log, log)
			}
		})
	}
	pid := c.process(t, n, "flannel-wg")
	c.do(t, n, func() error { return os.WriteFile("/var/run/wireguard/flannel-wg-2.log", nil, 0o600) }) // of one killed
	if err := n.Stop(c.ctx); err != nil {
		t.Fatal(err)
	}
	out, err := n.Output(c.ctx, "../../bin/selvaged", "cleanup")
	if err != nil || !strings.Contains(string(out), "flannel-wg") {
		t.Errorf("%s, %v, want that the device is removed", out, err)
	}
	c.gone(t, n, "flannel-wg")
	c.gone(t, n, "flannel-wg-2")
	ended(t, pid)
}

// TestForeignSocket: a program of others whose socket was removed is named, and works on. The device is repaired as far
// as that is possible without the program.
func TestForeignSocket(t *testing.T) {
	c := openForeign(t, lab.Options{
		Families: families(subnet.IPv4, subnet.IPv6), DaemonArgs: []string{"--wireguard-userspace", "--resync=1s"},
	}, "flannel-wg")
	c.begin(t, `{"Type":"wireguard","Mode":"separate"}`)
	n := c.Nodes()[0]
	remove := func(device string) {
		t.Helper()
		c.do(t, n, func() error { return os.Remove(userspace.Socket(device)) })
	}
	var before netlink.Link
	c.do(t, n, func() (err error) {
		if before, err = netlink.LinkByName("flannel-wg"); err == nil {
			err = netlink.LinkSetDown(before)
		}
		return err
	})
	remove("flannel-wg")
	testctx.Eventually(t, func() string {
		s, err := n.Status(c.ctx)
		if text := fmt.Sprint(s.Problems, err); !strings.Contains(text, "serves it at "+userspace.Socket("flannel-wg")) {
			return text
		}
		return ""
	})
	remove("flannel-wg-v6") // of a process of selvage's, which is replaced after as many reads
	testctx.Eventually(t, func() string {
		s, err := n.Status(c.ctx)
		if err != nil {
			return err.Error()
		}
		for _, d := range s.Backend.Devices {
			if d.Name == "flannel-wg-v6" && d.UserSpace != nil && d.UserSpace.Ours && d.UserSpace.Lost == 1 {
				return ""
			}
		}
		return fmt.Sprintf("%+v, %v, want that the process of flannel-wg-v6 is replaced", s.Backend.Devices, s.Problems)
	})
	if err := c.programs[0].Err(); err != nil {
		t.Errorf("the program has ended: %v", err)
	}
	testctx.Eventually(t, func() (missing string) {
		c.do(t, n, func() error {
			link, err := netlink.LinkByName("flannel-wg")
			if err == nil && (link.Attrs().Index != before.Attrs().Index || link.Attrs().Flags&net.FlagUp == 0) {
				missing = fmt.Sprintf("%+v, want the device with index %d, and up", link.Attrs(), before.Attrs().Index)
			}
			return err
		})
		return missing
	})
	c.recover(t)
}

// logged waits until a line of a node's log has a text, and fails the test if another one has it, too.
func logged(t *testing.T, n *lab.Node, text string) {
	t.Helper()
	testctx.Eventually(t, func() string {
		log, err := os.ReadFile(n.LogPath())
		lines := strings.Count(string(log), text)
		if lines > 1 {
			t.Fatalf("%d lines with %q, want one:\n%s", lines, text, log)
		}
		if lines == 0 {
			return fmt.Sprintf("no line with %q: %v\n%s", text, err, log)
		}
		return ""
	})
}

// TestNoTun: without /dev/net/tun, one problem says so and what to do, however often the process ends; the device is
// made as soon as it can be.
func TestNoTun(t *testing.T) {
	c := open(t, lab.Options{})
	n := c.Nodes()[0]
	c.do(t, n, func() error { return unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "") })
	hidden := true
	show := func() error {
		if !hidden {
			return nil
		}
		hidden = false
		return n.Do(func() error { return unix.Unmount("/dev/net", unix.MNT_DETACH) })
	}
	t.Cleanup(func() { _ = show() })
	c.configureNetwork(t, wireguardBackend)
	const text = "/dev/net/tun: no such file or directory"
	starts := 0
	testctx.Eventually(t, func() string {
		s, err := n.Status(c.ctx)
		if err != nil {
			return err.Error()
		}
		about := 0
		for _, p := range s.Problems {
			if strings.Contains(fmt.Sprint(p.Text), text) && strings.Contains(fmt.Sprint(p.Text), "modprobe tun") {
				about++
			}
		}
		starts = s.Failures["link"]
		if about != 1 || starts < 5 {
			return fmt.Sprintf("%d failures, and %d problems about the file, want one: %v", starts, about, s.Problems)
		}
		return ""
	})
	logged(t, n, text)
	out, err := n.Output(c.ctx, "../../bin/selvaged", "doctor", "--check", "entries")
	if err == nil || !strings.Contains(string(out), "modprobe tun") {
		t.Errorf("doctor: %v, want that it says what to do:\n%s", err, out)
	}
	if err := show(); err != nil {
		t.Fatal(err)
	}
	c.begin(t, wireguardBackend)
	c.probe(t)
}
