package cniplugin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An address is given to another pod soon after the last one has ended, and with it goes another MAC address. The node
// and its other pods would send to the old MAC address for as long as they take the old entry for reachable, which is
// half a minute. The bridge plugin has the kernel announce the IPv4 address when it sets the interface up, but the
// bridge does not forward by then.

const (
	forwardWait = time.Second // for the bridge to forward what the pod sends; with STP, it takes half a minute
	forwardLook = time.Millisecond
)

// announce has the kernel announce the addresses of the interface that ADD made to all who know another MAC address for
// them. A pod that is not announced works, too, in half a minute at the latest: no reason to refuse it.
func (c *call) announce(ctx context.Context) {
	if !c.madeHere() {
		return
	}
	if err := c.announceVeth(ctx); err != nil {
		fmt.Fprintf(c.Stderr, "selvage: whoever sent to a former pod with this pod's address reaches this one only "+
			"after half a minute: announce the interface %s: %v\n", c.a.ifName, err)
	}
}

// madeHere reports whether the delegate says that it made the interface in the container's namespace. Results before
// CNI 0.3.0 do not say so.
func (c *call) madeHere() bool {
	var result struct {
		Interfaces []struct{ Name, Sandbox string }
	}
	if json.Unmarshal(c.made.Result, &result) != nil {
		return false
	}
	for _, x := range result.Interfaces {
		if x.Name == c.a.ifName && x.Sandbox == c.netns {
			return true
		}
	}
	return false
}

func (c *call) announceVeth(ctx context.Context) error {
	var own attributes
	err := inNamespace(c.netns, func() (err error) { own, err = getLink(0, c.a.ifName); return err })
	if err != nil {
		return fmt.Errorf("find interface %s: %w", c.a.ifName, err)
	}
	if own.nested(unix.IFLA_LINKINFO).text(unix.IFLA_INFO_KIND) != "veth" {
		return nil // another delegate's
	}
	if err := awaitForwarding(ctx, own.uint32(unix.IFLA_LINK)); err != nil {
		return err
	}
	return inNamespace(c.netns, func() error {
		return errors.Join(notifies("ipv4", c.a.ifName, "arp_notify"), notifies("ipv6", c.a.ifName, "ndisc_notify"),
			setMAC(c.a.ifName, own[unix.IFLA_ADDRESS]))
	})
}

// awaitForwarding returns when the bridge that the interface with this index is attached to forwards what comes from
// it, or does not after forwardWait. An interface without a bridge is not waited for.
func awaitForwarding(ctx context.Context, index uint32) error {
	for until := time.Now().Add(forwardWait); ; {
		port, err := getLink(index, "")
		if err != nil {
			return fmt.Errorf("find the other end of the pod's interface: %w", err)
		}
		const forwarding = 3 // BR_STATE_FORWARDING (include/uapi/linux/if_bridge.h)
		info := port.nested(unix.IFLA_LINKINFO)
		state := info.nested(unix.IFLA_INFO_SLAVE_DATA)[iflaBrportState]
		if info.text(unix.IFLA_INFO_SLAVE_KIND) != "bridge" || len(state) == 1 && state[0] == forwarding {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return fmt.Errorf("the bridge has not forwarded what it sends for %v", forwardWait)
		}
		time.Sleep(forwardLook)
	}
}

// notifies has the kernel announce the addresses of an interface when it gets a MAC address, even the same. It needs
// not to for a family that the kernel does not have.
func notifies(family, link, name string) error {
	err := os.WriteFile("/proc/sys/net/"+family+"/conf/"+link+"/"+name, []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// setMAC sets a MAC address (SIOCSIFHWADDR, netdevice(7)). The kernel notifies itself of it even if it is the same as
// before, and with arp_notify and ndisc_notify sends an ARP request and unsolicited Neighbour Advertisements then,
// which replace the entries of all who have one (inetdev_event in net/ipv4/devinet.c, ndisc_netdev_event in
// net/ipv6/ndisc.c).
func setMAC(link string, mac []byte) error {
	if len(mac) != 6 || len(link) >= unix.IFNAMSIZ {
		return fmt.Errorf("%s has no MAC address", link)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var request [40]byte // struct ifreq: a name, then a struct sockaddr
	copy(request[:], link)
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.ARPHRD_ETHER)
	copy(request[unix.IFNAMSIZ+2:], mac)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return fmt.Errorf("set the MAC address of %s: %w", link, os.NewSyscallError("ioctl", errno))
	}
	return nil
}
