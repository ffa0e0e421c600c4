// Package userspace runs WireGuard devices in user space, where the kernel has none: a process for each device, which
// serves it over /dev/net/tun (package program). [Keeper] starts the processes.
//
// A process outlives the daemon, and so does the data path. Who serves a device is therefore asked of the kernel, and
// not remembered: the socket at [Socket] leads to the process ([At]). Where another program has removed the socket, the
// process is found among all processes. It is ours if its command line is the one that [Keeper] gives it. No other is
// ever signalled.
//
// The tun device ends with its process, and the process with its device. So a process that was killed is noticed like
// every device that is missing, and a device that is removed needs no more than that.
package userspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the program.
const (
	// ProgramName is what the daemon's binary is started as to serve a device, with the device's name as its only
	// argument.
	ProgramName = "selvage-wireguard"
	// Comm is the name of the process in /proc/PID/comm.
	Comm = "selvage-wg"
	// Ready is the line that the program prints once its device can be configured.
	Ready = "ready"
)

// dir is where user-space programs of WireGuard have their sockets: wg(8) and wgctrl look there.
const dir = "/var/run/wireguard"

// Socket returns the path of the socket by which a device is configured.
func Socket(device string) string { return filepath.Join(dir, device+".sock") }

// logPath returns the path of the file that has the last errors of the process of a device.
func logPath(device string) string { return filepath.Join(dir, device+".log") }

// Server is the process that serves a device in user space.
type Server struct {
	PID  int
	Ours bool // it is one that a daemon of selvage started
}

// At returns the process that listens at a device's socket; ok is false if there is none. It does not wait for the
// process to answer.
func At(device string) (s Server, ok bool) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return s, false
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: Socket(device)}); err != nil {
		return s, false
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return s, false
	}
	// The pid is 0 if the process is in another pid namespace.
	s.PID, s.Ours = int(peer.Pid), peer.Pid > 0 && serves(int(peer.Pid), device)
	return s, true
}

// hidden returns our process of a device in this network namespace, if there is one, without its socket. It reads the
// command line of every process.
func hidden(device string) (pid int, ok bool) {
	const self = "/proc/thread-self/ns/net"
	var here, there unix.Stat_t
	entries, err := os.ReadDir("/proc")
	if err != nil || unix.Stat(self, &here) != nil {
		return 0, false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !serves(pid, device) {
			continue
		}
		// Another node of a lab, or a container, may have a device of this name.
		err = unix.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &there)
		if err == nil && there.Dev == here.Dev && there.Ino == here.Ino {
			return pid, true
		}
	}
	return 0, false
}

// serves reports whether a process is ours and serves a device.
func serves(pid int, device string) bool {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && isCommand(string(line), device)
}

// isCommand reports whether a command line, as /proc/PID/cmdline has it, is that of our process for a device.
func isCommand(line, device string) bool {
	return slices.Equal(strings.Split(line, "\x00"), []string{ProgramName, device, ""})
}

// End ends our process that serves a device, at once, and removes its files. It does nothing if there is none. The
// device, if it still exists, ends with the process.
func End(device string) error {
	s, ok := At(device)
	if !ok || !s.Ours {
		return nil
	}
	return end(s.PID, device)
}

// end does the same for a process that is known.
func end(pid int, device string) error {
	if err := kill(pid, device); err != nil {
		return err
	}
	// The socket is closed after the process has lost its command line.
	_, ok := At(device)
	for until := time.Now().Add(killTime); ok && time.Now().Before(until); {
		if _, ok = At(device); ok {
			time.Sleep(time.Millisecond)
		}
	}
	if ok {
		return nil // another process listens there
	}
	_ = os.Remove(Socket(device))
	_ = os.Remove(logPath(device))
	_ = os.Remove(dir) // fails if other files are in it
	return nil
}

// Stale returns the paths of files that ended processes of ours have left: of each, its log and its socket. The log is
// what tells them from the files of others.
func Stale() (paths []string) {
	logs, _ := filepath.Glob(logPath("*")) // the pattern is well-formed
	for _, log := range logs {
		device := strings.TrimSuffix(filepath.Base(log), ".log")
		if _, ok := At(device); ok {
			continue
		}
		paths = append(paths, log)
		if _, err := os.Lstat(Socket(device)); err == nil {
			paths = append(paths, Socket(device))
		}
	}
	return paths
}

// killTime is how long the end of a process that was killed is waited for.
const killTime = 500 * time.Millisecond

// kill kills our process of a device, and waits for its end for a limited time. It kills no other process that has the
// pid by now: os.FindProcess holds on to the process by a pidfd, where the kernel has these (Linux 5.3).
func kill(pid int, device string) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	defer func() { _ = p.Release() }()
	if !serves(pid, device) {
		return nil // it has ended
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d, which serves the device %s: %w", pid, device, err)
	}
	for until := time.Now().Add(killTime); time.Now().Before(until) && serves(pid, device); {
		time.Sleep(time.Millisecond)
	}
	return nil
}
