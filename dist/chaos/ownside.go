package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// podBridge is the bridge of the lab's pods.
const podBridge = "cni0"

// ownSideFaults are those of what a node's own pods depend on: the bridge, its ports, addresses, routes and settings.
// The daemon repairs all of these. What it only names is in [namedFaults].
func ownSideFaults() []Fault {
	// A bridge and its ports carry both families.
	bridge := func(name string, do func(*target, netlink.Link) error) Fault {
		return Fault{Name: "own side: bridge " + name, Class: OwnSide, Families: both(), Shared: true,
			Inject: onBridge(do)}
	}
	port := func(name string, do func(*target, netlink.Link) error) Fault {
		return Fault{Name: "own side: port " + name, Class: OwnSide, Families: both(), Shared: true, Inject: onPort(do)}
	}
	setting := func(name string, typ int, value byte) Fault {
		return port(name, func(t *target, l netlink.Link) error { return t.nl.setPort(l, typ, value) })
	}
	fault := func(name string, do func(*target, subnet.Family) error) Fault {
		return Fault{Name: "own side: " + name, Class: OwnSide, Families: both(), Inject: inEachFamily(do)}
	}
	renamed := func(f Fault) Fault {
		f.Running = true // one that starts later does not know under which name the device was
		return f
	}
	all := []Fault{
		bridge("down", func(t *target, l netlink.Link) error { return t.nl.LinkSetDown(l) }),
		bridge("down and up", func(t *target, l netlink.Link) error {
			return errors.Join(t.nl.LinkSetDown(l), t.nl.LinkSetUp(l))
		}),
		bridge("deleted", func(t *target, l netlink.Link) error { return t.nl.LinkDel(l) }),
		renamed(bridge("renamed", func(t *target, l netlink.Link) error { return t.rename(l, "cni-lost") })),
		bridge("without ARP", func(t *target, l netlink.Link) error { return t.nl.LinkSetARPOff(l) }),
		bridge("with another MTU", func(t *target, l netlink.Link) error { return t.nl.LinkSetMTU(l, 1300) }),
		port("down", func(t *target, l netlink.Link) error { return t.nl.LinkSetDown(l) }),
		port("detached", func(t *target, l netlink.Link) error { return t.nl.LinkSetNoMaster(l) }),
		otherBridge(port("moved to another bridge", func(t *target, l netlink.Link) error {
			other, err := t.nl.LinkByName(lostBridge)
			if err != nil {
				return err
			}
			return t.nl.LinkSetMaster(l, other)
		})),
		renamed(port("renamed", func(t *target, l netlink.Link) error { return t.rename(l, "veth-lost") })),
		port("with another MTU", func(t *target, l netlink.Link) error { return t.nl.LinkSetMTU(l, 1300) }),
		setting("without hairpin", nl.IFLA_BRPORT_MODE, 0),
		setting("without learning", nl.IFLA_BRPORT_LEARNING, 0),
		setting("without flooding", nl.IFLA_BRPORT_UNICAST_FLOOD, 0),
		setting("isolated", nl.IFLA_BRPORT_ISOLATED, 1),
		setting("disabled", nl.IFLA_BRPORT_STATE, 0),
		fault("bridge's address flushed", (*target).flushBridge),
		fault("connected route deleted", (*target).deleteConnected),
		fault("forwarding off on the bridge", func(t *target, f subnet.Family) error {
			return t.write(forwardingOf(f, podBridge), "0")
		}),
	}
	ipv6 := func(name string, inject step) Fault {
		return Fault{Name: "own side: bridge " + name, Class: OwnSide, Families: []subnet.Family{subnet.IPv6},
			Inject: inject}
	}
	return append(all,
		ipv6("without IPv6 (disable_ipv6)", inEachFamily(func(t *target, _ subnet.Family) error {
			return t.write(disableIPv6(podBridge), "1")
		})),
		ipv6("without IPv6, then with it again", inEachFamily(func(t *target, _ subnet.Family) error {
			return errors.Join(t.write(disableIPv6(podBridge), "1"), t.write(disableIPv6(podBridge), "0"))
		})))
}

// lostBridge is another bridge on the node.
const lostBridge = "br-lost"

// otherBridge adds another bridge to the node before a fault, and deletes it after the repair.
func otherBridge(f Fault) Fault {
	bridge := func() netlink.Link {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = lostBridge
		return &netlink.Bridge{LinkAttrs: attrs}
	}
	inject := f.Inject
	f.Inject = func(ctx context.Context, t *target) error {
		if err := t.nl.LinkAdd(bridge()); err != nil {
			return err
		}
		return inject(ctx, t)
	}
	f.After = func(_ context.Context, t *target) error { return t.nl.LinkDel(bridge()) }
	return f
}

// onBridge makes a step of what is to be done to the pods' bridge.
func onBridge(do func(*target, netlink.Link) error) step {
	return func(_ context.Context, t *target) error {
		link, err := t.nl.LinkByName(podBridge)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name(), err)
		}
		return do(t, link)
	}
}

// onPort makes a step of what is to be done to the end on the node of the first pod's link. It is that pod that sends.
func onPort(do func(*target, netlink.Link) error) step {
	return func(_ context.Context, t *target) error {
		link, err := t.portOf(t.pods[0])
		if err != nil {
			return err
		}
		return do(t, link)
	}
}

// portOf finds the end on the node of a pod's link.
func (h *host) portOf(p *lab.Pod) (netlink.Link, error) {
	var index int
	err := p.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			index = link.Attrs().ParentIndex
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name(), err)
	}
	return h.nl.LinkByIndex(index)
}

// setPort changes a setting that a port of a bridge has of its own, with its number in the kernel (IFLA_BRPORT_).
func (r *reader) setPort(l netlink.Link, typ int, value byte) error {
	header := make(message, unix.SizeofIfInfomsg)
	header[0] = unix.AF_BRIDGE
	nl.NativeEndian().PutUint32(header[4:], uint32(l.Attrs().Index))
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(typ, []byte{value})
	return r.change(unix.RTM_SETLINK, 0, header, info)
}

// flushBridge removes all of the bridge's addresses of a family, as "ip address flush" does.
func (t *target) flushBridge(f subnet.Family) error {
	link, err := t.nl.LinkByName(podBridge)
	if err != nil {
		return err
	}
	addrs, err := t.nl.AddrList(link, int(netlinkFamily(f)))
	for _, a := range addrs {
		err = errors.Join(err, t.nl.AddrDel(link, &a))
	}
	return err
}

// deleteConnected deletes the routes that the bridge's addresses have made.
func (t *target) deleteConnected(f subnet.Family) error {
	link, err := t.nl.LinkByName(podBridge)
	if err != nil {
		return err
	}
	routes, err := t.nl.RouteList(link, int(netlinkFamily(f)))
	if err != nil {
		return err
	}
	deleted := 0
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL && !r.Dst.IP.IsLinkLocalUnicast() {
			err, deleted = errors.Join(err, t.nl.RouteDel(&r)), deleted+1
		}
	}
	if err == nil && deleted == 0 {
		err = fmt.Errorf("%s: %s has no connected %s route: %v", t.Name(), podBridge, f, routes)
	}
	return err
}
