package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// errNothing is returned for a fault that found nothing to break.
var errNothing = errors.New("there is nothing of the kind")

// overlay is what a node's kernel holds of the overlay.
type overlay struct {
	links      map[int]string // names of all interfaces, by index
	devices    []*netlink.Vxlan
	addrs      []netlink.Addr  // of the devices
	routes     []netlink.Route // to nodes' subnets, through whatever device
	neighbours []netlink.Neigh // on the devices
	fdb        []netlink.Neigh // on the devices
}

// readOverlay reads the node's kernel. subnets are those whose routes are of interest.
func (n *Node) readOverlay(subnets map[netip.Prefix]*Node) (overlay, error) {
	o, err := in(n.do, func() (overlay, error) { return readOverlay(subnets) })
	if err != nil {
		return o, fmt.Errorf("%s: read the kernel's tables: %w", n.name, err)
	}
	return o, nil
}

func readOverlay(subnets map[netip.Prefix]*Node) (o overlay, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return o, err
	}
	o.links = map[int]string{}
	for _, link := range links {
		o.links[link.Attrs().Index] = link.Attrs().Name
		device, ok := link.(*netlink.Vxlan)
		if !ok {
			continue
		}
		o.devices = append(o.devices, device)
		addrs, err := netlink.AddrList(device, netlink.FAMILY_ALL)
		if err != nil {
			return o, err
		}
		o.addrs = append(o.addrs, addrs...)
		for _, f := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
			entries, err := netlink.NeighList(device.Index, f)
			if err != nil {
				return o, err
			}
			if f == unix.AF_BRIDGE {
				o.fdb = append(o.fdb, entries...)
			} else {
				o.neighbours = append(o.neighbours, entries...)
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	for _, r := range routes {
		if subnets[prefixOf(r.Dst)] != nil {
			o.routes = append(o.routes, r)
		}
	}
	return o, err
}

// subnetsOf returns the subnets of the nodes that have one.
func subnetsOf(nodes []*Node) map[netip.Prefix]*Node {
	subnets := map[netip.Prefix]*Node{}
	for _, n := range nodes {
		file, err := n.Subnet()
		if err != nil {
			continue // it has none yet
		}
		for _, gateway := range file.Subnets {
			if gateway.IsValid() {
				subnets[gateway.Masked()] = n
			}
		}
	}
	return subnets
}

// vtepsOf returns the overlay addresses of the nodes' VTEPs: the first of each subnet.
func vtepsOf(subnets map[netip.Prefix]*Node) map[netip.Addr]*Node {
	vteps := map[netip.Addr]*Node{}
	for p, n := range subnets {
		vteps[p.Addr()] = n
	}
	return vteps
}

// underlayOf returns the underlay addresses of the nodes.
func underlayOf(nodes []*Node) map[netip.Addr]*Node {
	addrs := map[netip.Addr]*Node{}
	for _, n := range nodes {
		for _, f := range subnet.Families() {
			if a := n.Addr(f); a.IsValid() {
				addrs[a] = n
			}
		}
	}
	return addrs
}

// DeleteRoutes deletes the node's routes to the subnets of peers.
func (n *Node) DeleteRoutes(peers ...*Node) error {
	return n.breakOverlay("delete routes", subnetsOf(peers), func(o overlay) (done int, err error) {
		for _, r := range o.routes {
			// No more than its key: of one that goes by a nexthop object the kernel takes no gateway.
			err = errors.Join(err, netlink.RouteDel(&netlink.Route{Dst: r.Dst, Table: r.Table, Priority: r.Priority}))
			done++
		}
		return done, err
	})
}

// DeleteNeighbours deletes the node's ARP and ND entries for the peers' VTEPs.
func (n *Node) DeleteNeighbours(peers ...*Node) error {
	subnets := subnetsOf(peers)
	vteps := vtepsOf(subnets)
	return n.breakOverlay("delete neighbours", subnets, func(o overlay) (done int, err error) {
		for _, e := range o.neighbours {
			if vteps[addrOf(e.IP)] != nil {
				err = errors.Join(err, netlink.NeighDel(&e))
				done++
			}
		}
		return done, err
	})
}

// DeleteFDB deletes the node's FDB entries that lead to peers.
func (n *Node) DeleteFDB(peers ...*Node) error {
	underlay := underlayOf(peers)
	return n.breakOverlay("delete FDB entries", nil, func(o overlay) (done int, err error) {
		for _, e := range o.fdb {
			if underlay[addrOf(e.IP)] != nil {
				err = errors.Join(err, netlink.NeighDel(&e))
				done++
			}
		}
		return done, err
	})
}

// DeviceDown sets the node's overlay devices down, and up again if up is given. The kernel drops their routes.
func (n *Node) DeviceDown(up bool) error {
	return n.breakOverlay("set down", nil, func(o overlay) (done int, err error) {
		for _, d := range o.devices {
			err = errors.Join(err, netlink.LinkSetDown(d))
			if up {
				err = errors.Join(err, netlink.LinkSetUp(d))
			}
			done++
		}
		return done, err
	})
}

// DeviceDelete deletes the node's overlay devices, and with them all that is on them.
func (n *Node) DeviceDelete() error {
	return n.breakOverlay("delete", nil, func(o overlay) (done int, err error) {
		for _, d := range o.devices {
			err = errors.Join(err, netlink.LinkDel(d))
			done++
		}
		return done, err
	})
}

// FlushAddresses deletes the addresses of the node's overlay devices.
func (n *Node) FlushAddresses() error {
	return n.breakOverlay("flush addresses", nil, func(o overlay) (done int, err error) {
		for _, a := range o.addrs {
			link, linkErr := netlink.LinkByIndex(a.LinkIndex)
			if linkErr == nil {
				linkErr = netlink.AddrDel(link, &a)
			}
			err = errors.Join(err, linkErr)
			done++
		}
		return done, err
	})
}

// SetBridge sets the bridge of the node's pods up or down: the interface with the gateway's address of the node's
// subnet.
func (n *Node) SetBridge(up bool) error {
	file, err := n.Subnet()
	if err != nil {
		return err
	}
	err = n.do(func() error {
		bridge, err := linkWith(file.Subnets)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(bridge)
		}
		return netlink.LinkSetDown(bridge)
	})
	if err != nil {
		return fmt.Errorf("%s: set the bridge up or down: %w", n.name, err)
	}
	return nil
}

// linkWith finds the interface that has one of the addresses.
func linkWith(prefixes [2]netip.Prefix) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			addr := addrOf(a.IP)
			if slices.ContainsFunc(prefixes[:], func(p netip.Prefix) bool { return p.IsValid() && p.Addr() == addr }) {
				return link, nil
			}
		}
	}
	return nil, errNothing
}

// breakOverlay reads the node's kernel and lets fn change it; fn says how many things it changed.
func (n *Node) breakOverlay(what string, subnets map[netip.Prefix]*Node, fn func(overlay) (int, error)) error {
	err := n.do(func() error {
		o, err := readOverlay(subnets)
		if err != nil {
			return err
		}
		done, err := fn(o)
		if err == nil && done == 0 {
			return errNothing
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", n.name, what, err)
	}
	return nil
}
