package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

const (
	underlay = "bench0" // beside the lab's, which the part "path" makes
	uplink   = "eth0"
	router   = "172.30.0.1" // of the benchmark itself, and of etcd
	// patience is how long anything may take.
	patience = time.Minute
)

// makeUnderlay makes the bridge that the nodes hang on, in the sandbox's own namespace.
func makeUnderlay() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: underlay}}
	return errors.Join(netlink.LinkAdd(bridge), addAddress(bridge, router+"/16"), netlink.LinkSetUp(bridge))
}

func addAddress(link netlink.Link, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	a.Flags = unix.IFA_F_NODAD
	return netlink.AddrAdd(link, a)
}

// node is a machine of its own, as far as a daemon can tell.
type node struct {
	host    *sandbox.Host
	address string // on the underlay, IPv4
	log     string // the daemon's output
	listen  *listener
	stop    chan struct{}
}

// node makes a node that hangs on the underlay.
func (b *bench) node() (_ *node, err error) {
	b.nodes++
	name := fmt.Sprintf("bench%d", b.nodes)
	n := &node{log: filepath.Join(b.dir, name+".log"), stop: make(chan struct{})}
	if n.host, err = sandbox.NewHost(name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	bridge, err := netlink.LinkByName(underlay)
	if err != nil {
		return nil, err
	}
	outer := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index}, PeerName: uplink,
		PeerNamespace: netlink.NsFd(n.host.NetFd())}
	if err := errors.Join(netlink.LinkAdd(outer), netlink.LinkSetUp(outer)); err != nil {
		return nil, fmt.Errorf("connect a node: %w", err)
	}
	err = n.host.Do(func() error {
		link, err := netlink.LinkByName(uplink)
		if err != nil {
			return err
		}
		// The kernel would give it a link-local address, and tell so a second or two later, in the middle of something else.
		const none = 1 // IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
		err = netlink.LinkSetIP6AddrGenMode(link, none)
		n.address = fmt.Sprintf("172.30.%d.%d", 1+b.nodes/250, 1+b.nodes%250)
		err = errors.Join(err, addAddress(link, n.address+"/16"),
			addAddress(link, fmt.Sprintf("fd00:30::%x/64", 1+b.nodes)), netlink.LinkSetUp(link))
		if err != nil {
			return err
		}
		n.listen, err = listen()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect a node: %w", err)
	}
	go n.listen.run(n.stop)
	return n, nil
}

// close ends all that there is of a node. Its devices go first, while somebody waits: what a namespace still has when it
// ends the kernel clears away later, and slows down whatever is measured then.
func (n *node) close() error {
	if n.listen != nil {
		close(n.stop)
		<-n.listen.done
		unix.Close(n.listen.from.fd)
	}
	err := n.host.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Type() == "vxlan" || l.Type() == "veth" {
				err = errors.Join(err, netlink.LinkDel(l))
			}
		}
		return err
	})
	return errors.Join(err, n.host.Close())
}

// run runs a program in the node to its end, and returns how it ended.
func (n *node) run(argv ...string) (*os.ProcessState, error) {
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.host.Do(cmd.Run); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, firstBytes(out.String(), 300))
	}
	return cmd.ProcessState, nil
}

func firstBytes(s string, n int) string { return s[:min(n, len(s))] }

// program is a daemon that can be measured.
type program struct {
	name string
	path string
	args []string // beyond those that flannel has too
}

// daemon is one run of a program.
type daemon struct {
	cmd   *exec.Cmd
	began time.Time
	ready chan time.Time // gets one time: when it said that it is ready, see sd_notify(3)
	done  chan struct{}  // closed at its end
	log   string
}

// received is how many bytes the node's uplink has received: all that a store sends to the daemon, with the headers of
// IP and TCP as far as the kernel has not left them out between two ends of a veth pair.
func (n *node) received() (bytes float64, err error) {
	err = n.host.Do(func() error {
		link, err := netlink.LinkByName(uplink)
		if err == nil {
			bytes = float64(link.Attrs().Statistics.RxBytes)
		}
		return err
	})
	return bytes, err
}

// start starts a daemon; args and environment say where its store is.
func (n *node) start(p program, args []string, environment ...string) (*daemon, error) {
	var socket *net.UnixConn
	err := n.host.Do(func() (err error) {
		socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"}) // a name of the kernel's choice, unix(7)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a socket for the daemon's state: %w", err)
	}
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d := &daemon{ready: make(chan time.Time, 1), done: make(chan struct{}), log: n.log}
	d.cmd = exec.Command(p.path, slices.Concat(args, []string{"--iface=" + uplink, "--ip-masq"}, p.args)...)
	d.cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+socket.LocalAddr().String()), environment...)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the benchmark, which ends it
	err = n.host.Do(func() error {
		d.began = time.Now()
		return d.cmd.Start()
	})
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("start %s: %w", p.path, err)
	}
	go func() {
		message := make([]byte, 4096)
		for said := false; ; {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			if !said && bytes.Contains(message[:n], []byte("READY=1")) {
				said = true
				d.ready <- time.Now()
			}
		}
	}()
	go func() {
		_ = d.cmd.Wait() // how it ended matters only if it was not to end, and then the log says why
		socket.Close()
		close(d.done)
	}()
	return d, nil
}

// end ends the daemon with SIGTERM.
func (d *daemon) end() {
	_ = d.cmd.Process.Signal(unix.SIGTERM) // fails only if it has ended
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill() // the same
		<-d.done
	}
}

// await waits for a time to come, as long as the daemon runs. what says what is missing.
func (d *daemon) await(ctx context.Context, c <-chan time.Time, what func() error) (time.Time, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t := <-c:
		return t, nil
	case <-d.done:
		return time.Time{}, fmt.Errorf("%s has ended: %s", d.cmd.Path, tail(d.log))
	case <-timer.C:
		return time.Time{}, fmt.Errorf("after %s: %w; %s", patience, what(), tail(d.log))
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

func (d *daemon) awaitReady(ctx context.Context) (time.Time, error) {
	return d.await(ctx, d.ready, func() error { return errors.New("it has not said that it is ready") })
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return "it last printed:\n" + string(b[max(0, len(b)-1500):])
}

// cpu is what the daemon, and the programs that it ran and that have ended, have used: user and system, from proc_pid_stat(5).
func (d *daemon) cpu() (own, programs time.Duration, err error) { return cpuOf(d.cmd.Process.Pid) }

func cpuOf(pid int) (own, programs time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	const utime, tick = 14 - 3, time.Second / 100 // USER_HZ is 100 on all that Go runs on
	var ticks [4]time.Duration
	for i := range ticks {
		v, err := strconv.Atoi(fields[utime+i])
		if err != nil {
			return 0, 0, err
		}
		ticks[i] = time.Duration(v) * tick
	}
	return ticks[0] + ticks[1], ticks[2] + ticks[3], nil
}

// memory is how much of it a process has: kilobytes of 1,024 bytes as the kernel gives them, turned into bytes.
type memory struct{ Peak, Resident, Anon, File float64 }

func (d *daemon) memory() (memory, error) { return memoryOf(d.cmd.Process.Pid) }

// memoryOf reads proc_pid_status(5).
func memoryOf(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		to, ok := map[string]*float64{"VmHWM": &m.Peak, "VmRSS": &m.Resident, "RssAnon": &m.Anon, "RssFile": &m.File}[name]
		if !ok {
			continue
		}
		if _, err := fmt.Sscan(rest, to); err != nil {
			return m, fmt.Errorf("%s of process %d: %w", name, pid, err)
		}
		*to *= 1024
	}
	return m, nil
}

// families of an overlay.
func ipv4() []subnet.Family { return []subnet.Family{subnet.IPv4} }
func dual() []subnet.Family { return []subnet.Family{subnet.IPv4, subnet.IPv6} }
