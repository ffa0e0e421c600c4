package kernel

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

const (
	portUserTime  = 2 * time.Second  // how long the user of a port is looked for: a host can have many processes
	portUserAgain = 10 * time.Second // when it is looked for again while the port is in use
	portUserKept  = time.Minute      // how long an answer counts after the last question
)

// portUsers looks for the users of UDP ports in goroutines of its own, one for each port at a time.
type portUsers struct {
	ctx  context.Context
	stop context.CancelFunc
	wait sync.WaitGroup
	mu   sync.Mutex
	of   map[uint16]portUser
}

// portUser is what is known of the user of a port.
type portUser struct {
	text    string    // who it is, and what to do; empty: not known
	asked   time.Time // the last time that it was of interest
	looked  time.Time // when it was looked for
	looking bool
}

func newPortUsers() *portUsers {
	u := &portUsers{of: map[uint16]portUser{}}
	u.ctx, u.stop = context.WithCancel(context.Background())
	return u
}

func (u *portUsers) close() {
	u.stop()
	u.wait.Wait()
}

// ask returns what is known of the user of a port, and whether that is to be looked for.
func (u *portUsers) ask(port uint16, now time.Time) (text string, look bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.of[port]
	if now.Sub(x.asked) > portUserKept {
		x.text, x.looked = "", time.Time{}
	}
	x.asked = now
	if look = !x.looking && now.Sub(x.looked) > portUserAgain; look {
		x.looked, x.looking = now, true
	}
	u.of[port] = x
	return x.text, look
}

// look has find called in a goroutine, and keeps what it returns.
func (u *portUsers) look(port uint16, find func(context.Context) string) {
	u.wait.Go(func() {
		ctx, cancel := context.WithTimeout(u.ctx, portUserTime)
		defer cancel()
		text := find(ctx)
		u.mu.Lock()
		defer u.mu.Unlock()
		x := u.of[port]
		x.text, x.looking = text, false
		u.of[port] = x
	})
}

// portInUse says who has the UDP port of a device that the kernel refuses to set up, for an error, and what to do. The
// first error does not say who: reading the files of all processes takes long, and the change is tried again soon.
func (k *Kernel) portInUse(name string, want network.LinkSettings) string {
	settings, ok := want.(network.VXLAN)
	if !ok {
		return "the UDP port is in use"
	}
	port := settings.Port
	text, look := k.ports.ask(port, time.Now())
	if look {
		// Opened here: the goroutine's thread can be in another network namespace.
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		var tables []*os.File
		for _, file := range []string{"udp", "udp6"} {
			if f, err := os.Open("/proc/thread-self/net/" + file); err == nil {
				tables = append(tables, f)
			}
		}
		k.ports.look(port, func(ctx context.Context) string {
			for _, f := range tables {
				defer f.Close()
			}
			if err == nil {
				defer handle.Close()
			}
			return findPortUser(ctx, handle, tables, name, port)
		})
	}
	return cmp.Or(text, fmt.Sprintf("UDP port %d is in use: \"ss -lunp\" may show by which process, %s",
		port, otherPort))
}

const otherPort = "or set another Backend.Port in the network config, for all nodes"

// findPortUser says who has a UDP port, and what to do; empty: not found. A device is looked for first: the kernel's
// own sockets belong to no process. handle may be nil.
func findPortUser(ctx context.Context, handle *netlink.Handle, tables []*os.File, name string, port uint16) string {
	if handle != nil {
		links, _ := handle.LinkList() // unreadable: unknown
		for _, l := range links {
			if p, how := tunnelPort(l); p == port && l.Attrs().Name != name {
				return fmt.Sprintf("UDP port %d is in use by device %s (%s%s): delete it (ip link delete %s), %s",
					port, l.Attrs().Name, l.Type(), how, l.Attrs().Name, otherPort)
			}
		}
	}
	var inodes []string
	for _, f := range tables {
		inodes = append(inodes, udpSockets(f, port)...)
	}
	if user := socketUser(ctx, inodes); user != "" {
		return fmt.Sprintf("UDP port %d is in use by %s: stop it, %s", port, user, otherPort)
	}
	return ""
}

// tunnelPort returns the UDP port on which a tunnel device receives, and what to say of it beside its kind; 0: it is no
// such device, or is down and has no socket.
func tunnelPort(l netlink.Link) (port uint16, how string) {
	if l.Attrs().Flags&net.FlagUp == 0 {
		return 0, ""
	}
	switch l := l.(type) {
	case *netlink.Vxlan:
		if l.FlowBased {
			how = ", external"
		}
		return uint16(l.Port), how
	case *netlink.Geneve:
		if l.FlowBased {
			how = ", external"
		}
		return l.Dport, how
	case *netlink.BareUDP:
		return l.Port, ""
	}
	return 0, ""
}

// udpSockets returns the inodes of the sockets that are bound to a port; one of the kernel's own has the inode 0.
func udpSockets(table io.Reader, port uint16) (inodes []string) {
	data, _ := io.ReadAll(table) // unreadable: unknown
	for line := range strings.Lines(string(data)) {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		_, text, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(text, 16, 16); err == nil && uint16(n) == port {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

// socketUser describes a process that has one of the sockets; empty: none is found before ctx ends.
func socketUser(ctx context.Context, inodes []string) string {
	if len(inodes) == 0 {
		return ""
	}
	if !slices.ContainsFunc(inodes, func(inode string) bool { return inode != "0" }) {
		return "the kernel itself (a tunnel, perhaps of WireGuard, L2TP or FOU)"
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		if ctx.Err() != nil {
			return ""
		}
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if has, _ := hasSocket("/proc/"+p.Name()+"/fd", inodes...); has {
			return fmt.Sprintf("pid %s (%s)", p.Name(), commandOf("/proc/"+p.Name()))
		}
	}
	return "a process that cannot be seen from here, perhaps of another container"
}
