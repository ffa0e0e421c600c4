package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addVeth makes a veth pair: name here, a port of the bridge if one is named, and eth0 in the other namespace, with the
// hardware address mac if that is not nil.
func addVeth(name, bridge string, other, mtu int, mac net.HardwareAddr) error {
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: name, MTU: mtu})
	veth.PeerName, veth.PeerNamespace, veth.PeerMTU, veth.PeerHardwareAddr = uplink, netlink.NsFd(other), uint32(mtu), mac
	if bridge != "" {
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", bridge, err)
		}
		veth.MasterIndex = master.Attrs().Index
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add the veth pair %s: %w", name, err)
	}
	return nil
}

// configure sets an interface of the calling thread's namespace up, with the valid ones of the given addresses.
func configure(name string, addrs [2]netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, addr := range addrs {
		if !addr.IsValid() {
			continue
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %s to %s: %w", addr, name, err)
		}
	}
	return netlinkUp(name)
}

func netlinkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// defaultRoutes sends everything else to the valid ones of the given routers.
func defaultRoutes(via [2]netip.Prefix) error {
	for _, router := range via {
		if !router.IsValid() {
			continue
		}
		if err := netlink.RouteAdd(&netlink.Route{Gw: router.Addr().AsSlice()}); err != nil {
			return fmt.Errorf("add the default route via %s: %w", router.Addr(), err)
		}
	}
	return nil
}

// removeLink removes an interface; one that is not there is no error.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	// One end of a veth pair goes with the namespace of the other, at any moment.
	if notFound := (netlink.LinkNotFoundError{}); err != nil && !errors.As(err, &notFound) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// noDAD switches duplicate address detection (RFC 4862) off for the interfaces to come in the calling thread's namespace: it
// keeps each IPv6 address, link-local ones too, from use for a second or two.
func noDAD() error {
	for _, which := range []string{"all", "default"} {
		if err := sysctl("net/ipv6/conf/"+which+"/accept_dad", "0"); err != nil {
			return err
		}
	}
	return nil
}

// sysctl sets a value. The files below net are those of the calling thread's network namespace, whatever /proc is mounted.
func sysctl(path, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644)
}
