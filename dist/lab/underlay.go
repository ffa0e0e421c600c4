package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// uplink is the name of a node's interface to the underlay.
const uplink = "eth0"

// underlayAddr returns address number host of a segment, by family, with the segment's length: 172.31.0.11/24 and
// fd00:31::11/64 for host 11 of segment 0.
func underlayAddr(segment, host int) [2]netip.Prefix {
	return [2]netip.Prefix{
		subnet.IPv4: netip.MustParsePrefix(fmt.Sprintf("172.31.%d.%d/24", segment, host)),
		// The decimal number is written as if it were hexadecimal, so that people see it is the same host.
		subnet.IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00:31:0:%d::%d/64", segment, host)),
	}
}

// outsideAddr is the same for the network outside.
func outsideAddr(host int) [2]netip.Prefix {
	return [2]netip.Prefix{
		subnet.IPv4: netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/24", host)), // TEST-NET-2, RFC 5737
		subnet.IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00:198::%d/64", host)),
	}
}

// outside is the endpoint in another network, and the namespace it is in.
type outside struct {
	*Endpoint
	net *sandbox.Net
}

// buildUnderlay makes the lab process's network namespace a router between the segments and the outside.
func (l *Lab) buildUnderlay() error {
	for path, value := range map[string]string{
		"net/ipv4/ip_forward":            "1",
		"net/ipv4/conf/all/rp_filter":    "0",
		"net/ipv6/conf/all/forwarding":   "1",
		"net/ipv6/conf/all/disable_ipv6": "0",
	} {
		if err := sysctl(path, value); err != nil {
			return err
		}
	}
	if err := noDAD(); err != nil {
		return err
	}
	for segment := range l.options.Segments {
		name := fmt.Sprintf("underlay%d", segment)
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: l.options.MTU}}
		// Else a bridge has the lowest address of its ports, and another once a port with a lower one is added. Nodes that have
		// resolved the old one then send to it in vain until their neighbour entry expires, which takes up to a minute.
		bridge.HardwareAddr = net.HardwareAddr{2, 172, 31, byte(segment), 0, 1}
		if err := netlink.LinkAdd(bridge); errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("bridge %s exists: another lab runs in this process; close it first", name)
		} else if err != nil {
			return fmt.Errorf("add bridge %s: %w", name, err)
		}
		l.bridges = append(l.bridges, name)
		if err := configure(name, l.onUnderlay(underlayAddr(segment, 1))); err != nil {
			return err
		}
	}
	return l.buildOutside()
}

func (l *Lab) buildOutside() error {
	ns, err := sandbox.NewNet()
	if err != nil {
		return err
	}
	l.outside = &outside{net: ns}
	if err := ns.Do(noDAD); err != nil {
		return err
	}
	if err := addVeth("outside0", "", ns.Fd(), l.options.MTU, nil); err != nil {
		return err
	}
	if err := configure("outside0", l.onUnderlay(outsideAddr(1))); err != nil {
		return err
	}
	err = ns.Do(func() error {
		return errors.Join(configure("lo", [2]netip.Prefix{}), configure(uplink, l.onUnderlay(outsideAddr(2))),
			defaultRoutes(l.onUnderlay(outsideAddr(1))))
	})
	if err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	l.outside.Endpoint, err = newEndpoint("outside", ns.Do, addrsOf(l.onUnderlay(outsideAddr(2))))
	return err
}

// removeUnderlay undoes buildUnderlay and what attachNode did. Removing one end of a veth pair removes the other at once,
// while a namespace takes its time to go.
func (l *Lab) removeUnderlay() error {
	var errs []error
	if l.outside != nil {
		if l.outside.Endpoint != nil {
			l.outside.close()
		}
		errs = append(errs, removeLink("outside0"), l.outside.net.Close())
	}
	for _, n := range l.nodes {
		errs = append(errs, removeLink(n.name))
	}
	for _, name := range l.bridges {
		errs = append(errs, removeLink(name))
	}
	return errors.Join(errs...)
}

// attachNode connects node number i, from 0, to its segment.
func (l *Lab) attachNode(host *sandbox.Host, i int) error {
	if err := host.Do(noDAD); err != nil {
		return err
	}
	segment := l.segment(i)
	if err := addVeth(host.Name(), fmt.Sprintf("underlay%d", segment), host.NetFd(), l.options.MTU, nodeMAC(i)); err != nil {
		return err
	}
	if err := netlinkUp(host.Name()); err != nil {
		return err
	}
	return host.Do(func() error {
		if err := configure(uplink, l.nodeAddr(i)); err != nil {
			return err
		}
		if l.options.Nodes > manyNodes {
			if err := l.resolveNodes(segment); err != nil {
				return err
			}
		}
		return defaultRoutes(l.onUnderlay(underlayAddr(segment, 1)))
	})
}

// manyNodes is how many nodes may resolve each other's underlay addresses by themselves.
const manyNodes = 20

// resolveNodes gives the calling thread's uplink permanent neighbour entries for the nodes of its segment. Of others the
// kernel keeps 1024 (net.ipv4.neigh.default.gc_thresh3) in one table for all namespaces of the machine, and a full mesh of
// 50 nodes would have 2450.
func (l *Lab) resolveNodes(segment int) error {
	link, err := netlink.LinkByName(uplink)
	if err != nil {
		return fmt.Errorf("find %s: %w", uplink, err)
	}
	for i := segment; i < l.options.Nodes; i += l.options.Segments {
		for _, addr := range l.nodeAddr(i) {
			if !addr.IsValid() {
				continue
			}
			entry := &netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.Addr().AsSlice(), HardwareAddr: nodeMAC(i),
			}
			if err := netlink.NeighSet(entry); err != nil {
				return fmt.Errorf("add the neighbour %s: %w", addr.Addr(), err)
			}
		}
	}
	return nil
}

// segment is the number of the segment that node number i is on, both from 0.
func (l *Lab) segment(i int) int { return i % l.options.Segments }

// nodeMAC returns the address of the uplink of node number i, from 0.
func nodeMAC(i int) net.HardwareAddr { return net.HardwareAddr{2, 172, 31, 255, byte(i >> 8), byte(i)} }

// nodeAddr returns the underlay addresses of node number i, from 0.
func (l *Lab) nodeAddr(i int) [2]netip.Prefix {
	return l.onUnderlay(underlayAddr(l.segment(i), 11+i/l.options.Segments))
}
