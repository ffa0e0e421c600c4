// Package kernel connects the tables of package network to the Linux kernel, over netlink: it reads the kernel's
// objects, watches them, and changes them.
//
// All of it is about the network namespace in which [Open] was called.
package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// Kernel reads and changes one network namespace. Its methods belong to one goroutine, except [Kernel.Watch], which
// runs concurrently.
type Kernel struct {
	// handle keeps its sockets open: a request on a socket of its own costs twice as much.
	handle *netlink.Handle
	raw    map[int]*nl.SocketHandle // for requests that the library lacks
	batch  *batch                   // for changes and dumps
	tables *network.Tables
	links  map[int32]string // names of all devices by interface index
	byName map[string]int32 // the inverse of links
	// fresh devices have been down since they were created: nothing on them can have disappeared.
	fresh map[int32]struct{}
	// unfinished devices were reported as they were while they were being made, see readUnfinished.
	unfinished map[string]struct{}
	filter     *vtepfilter.Filter // of VTEPs; nil if there is none
	fast       *fastpath.Path     // nil if there is none
	// ethtool is opened on first use, see features.
	ethtool *ethtool.Ethtool
	// lostNexthops were reported as deleted, and their routes are still in the tables.
	lostNexthops map[network.NexthopID]struct{}
	suspects     map[string]struct{} // devices to read again
	foreign      foreign             // what to read again of devices that are not ours
	settings     staleSettings
	wireGuards   wireGuards
	requests     int // reads of the kernel's objects and settings, and the messages in their answers, for tests
	answers      int
	// nexthops: this kernel has nexthop objects (Linux 5.3).
	nexthops bool

	tended       tended                   // what pods depend on
	networks     []netip.Prefix           // see Overlay
	uplink       string                   // the device that carries the overlay; empty: none
	uplinkStale  bool                     // a notification may concern it
	near         map[nearAddress]struct{} // see Overlapping
	ports        *portUsers
	routingStale bool // see RoutingStale
	followPorts  bool // see FollowPorts
	portsStale   bool // a veth device was attached to a bridge, or detached from one
	queuesStale  bool // see QueuesStale
	// overlayStale: notifications of routes that concern us now may have been ignored.
	overlayStale bool

	mu       sync.Mutex
	inbox    inbox
	lost     bool
	overruns int
}

// Open returns a Kernel that observes the kernel into the given tables and applies their changes. It needs
// CAP_NET_ADMIN for every change.
func Open(tables *network.Tables) (*Kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	batch, err := openBatch()
	if err != nil {
		handle.Close()
		socket.Close()
		return nil, err
	}
	_ = unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) // as in openBatch
	k := &Kernel{
		handle: handle,
		raw:    map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}},
		batch:  batch,
		tables: tables,
		links:  map[int32]string{},
		byName: map[string]int32{},
		fresh:  map[int32]struct{}{},

		unfinished:   map[string]struct{}{},
		lostNexthops: map[network.NexthopID]struct{}{},
		suspects:     map[string]struct{}{},
		foreign:      newForeign(),
		settings:     staleSettings{of: map[string]struct{}{}},
		tended:       newTended(),
		near:         map[nearAddress]struct{}{},
		ports:        newPortUsers(),
	}
	tables.VTEPs.ApplyBatch(k.VTEPs)
	tables.ApplyLinks(func(name string, c network.Change[network.Link]) (network.LinkEffects, error) {
		effects, err := k.Link(name, c)
		return effects, errno.Explain(errno.Device, err)
	})
	tables.ApplyBridges(func(name string, c network.Change[network.Bridge]) (network.LinkEffects, error) {
		effects, err := k.Bridge(name, c)
		return effects, errno.Explain(errno.Device, err)
	})
	tables.Ports.ApplyEach(func(name string, c network.Change[network.Port]) error {
		return errno.Explain(errno.Device, k.Port(name, c))
	})
	tables.Addresses.ApplyEach(func(key network.AddressKey, c network.Change[network.Address]) error {
		return errno.Explain(errno.Address, k.Address(key, c))
	})
	tables.FDB.ApplyBatch(explained(errno.Neighbour, k.FDB))
	tables.Neighbours.ApplyBatch(explained(errno.Neighbour, k.Neighbours))
	tables.Nexthops.ApplyBatch(explained(errno.Route, k.Nexthops))
	tables.Routes.ApplyBatch(explained(errno.Route, k.Routes))
	tables.Sysctls.ApplyEach(k.Sysctl)
	tables.FastPeers.ApplyBatch(k.FastPeers)
	tables.Programs.ApplyEach(k.Program)
	tables.WireGuards.ApplyEach(func(name string, c network.Change[network.WireGuard]) error {
		return errno.Explain(errno.Device, k.WireGuard(name, c))
	})
	tables.Peers.ApplyBatch(explained(errno.Device, k.Peers))
	tables.AllowedIPs.ApplyBatch(explained(errno.Device, k.AllowedIPs))
	k.nexthops = k.readNexthops(func([]byte) {}) == nil
	return k, nil
}

// explained returns an apply function that explains the errors of f.
func explained[K, V comparable](
	op errno.Operation, f func([]network.Update[K, V]),
) func([]network.Update[K, V]) {
	return func(batch []network.Update[K, V]) {
		f(batch)
		for i := range batch {
			batch[i].Err = errno.Explain(op, batch[i].Err)
		}
	}
}

// HasNexthops reports whether this kernel has nexthop objects (Linux 5.3).
func (k *Kernel) HasNexthops() bool { return k.nexthops }

// Close closes the sockets, and ends what runs in the background.
func (k *Kernel) Close() {
	k.ports.close()
	k.wireGuards.close()
	k.handle.Close()
	k.raw[unix.NETLINK_ROUTE].Close()
	k.batch.close()
	if k.ethtool != nil {
		k.ethtool.Close()
	}
}

// Handle is the netlink handle, for other code that works on the same namespace from the same goroutine.
func (k *Kernel) Handle() *netlink.Handle { return k.handle }

// index returns the interface index of the device called name.
func (k *Kernel) index(name string) (int, error) {
	if index, ok := k.byName[name]; ok {
		return int(index), nil
	}
	return 0, fmt.Errorf("%w: %s", unix.ENODEV, name)
}

// named records the name of the device with an index.
func (k *Kernel) named(index int32, name string) {
	k.unnamed(index)
	k.links[index], k.byName[name] = name, index
}

// unnamed records that no device has an index any more.
func (k *Kernel) unnamed(index int32) {
	name := k.links[index]
	delete(k.links, index)
	delete(k.fresh, index)
	delete(k.tended.veths, index)
	if k.byName[name] == index { // and not another device's by now
		delete(k.byName, name)
	}
}

// Uplink names the device that carries the overlay; [Kernel.UplinkStale] is about it from then on.
func (k *Kernel) Uplink(name string) { k.uplink = name }

// Overlay names the overlay's networks. Foreign routes to them are observed too, see [network.Tables.Shadows].
func (k *Kernel) Overlay(networks []netip.Prefix) {
	k.overlayStale = k.overlayStale || !slices.Equal(networks, k.networks)
	k.networks = slices.Clone(networks)
}

// UplinkStale reports, once, whether notifications since the last call may change the choice of the uplink: they
// concern the uplink itself, any device while there is no uplink, or a default route.
func (k *Kernel) UplinkStale() bool {
	stale := k.uplinkStale
	k.uplinkStale = false
	return stale
}

// Concerned reports whether [Kernel.UplinkStale] or [Kernel.TendedStale] will be true. If ports are followed, it also
// reports what [Kernel.QueuesStale] is about.
func (k *Kernel) Concerned() bool {
	return k.uplinkStale || k.tended.stale || k.followPorts && (k.portsStale || k.queuesStale)
}

// RoutingStale reports, once, whether notifications since the last call may change how the kernel routes packets: of
// devices, addresses, routes, policy rules or settings. It is true after a resync too.
func (k *Kernel) RoutingStale() bool {
	stale := k.routingStale
	k.routingStale = false
	return stale
}

// RequestResync makes the next [Kernel.Observe] a full resync.
func (k *Kernel) RequestResync() { k.enqueue(func() { k.lost = true }) }

// Overruns returns how often notifications were lost because they arrived faster than they were read.
func (k *Kernel) Overruns() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.overruns
}

// DeviceMAC returns the MAC address of the device called name. It is zero if there is none, or if that is of a kind
// that selvage does not make.
func (k *Kernel) DeviceMAC(name string) (mac network.MAC) {
	link, err := k.handle.LinkByName(name)
	if err == nil && kindNamed(link.Type()) != nil {
		copy(mac[:], link.Attrs().HardwareAddr)
	}
	return mac
}

// Scopes returns the networks that have devices here.
func (k *Kernel) Scopes() (all []network.Scope, err error) {
	err = repeated(func() error {
		all = nil
		return k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(_ uint16, data []byte) {
			m, ok := decodeLink(data)
			if s, is := network.ParseAlias(m.link.Alias); ok && is && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	})
	return all, err
}

// DeviceAlias returns the ifalias of the device called name; empty if there is none.
func (k *Kernel) DeviceAlias(name string) string {
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return ""
	}
	return link.Attrs().Alias
}

// Hosts returns the addresses inside prefix that the kernel knows a MAC address for, on devices that are not ours:
// usually the pods on this node's bridge that sent packets lately.
func (k *Kernel) Hosts(prefix netip.Prefix) (hosts []netip.Addr) {
	const known = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	request := &neighbourRequest{family: familyOf(prefix.Addr())}
	err := k.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, func(_ uint16, data []byte) {
		m, ok := decodeNeighbour(data)
		if ok && prefix.Contains(m.ip) && m.state&known != 0 && !k.tables.OwnsLink(k.links[m.index]) {
			hosts = append(hosts, m.ip)
		}
	}, request)
	if err != nil {
		return nil // the result is only logged
	}
	slices.SortFunc(hosts, netip.Addr.Compare)
	return slices.Compact(hosts)
}

// HasAddressIn reports whether this node has an address in prefix, on any interface. It asks the kernel, and says no if
// that does not answer.
func (k *Kernel) HasAddressIn(prefix netip.Prefix) bool {
	all, err := k.handle.AddrList(nil, netlink.FAMILY_ALL)
	return err == nil && slices.ContainsFunc(all, func(a netlink.Addr) bool {
		ip, ok := netip.AddrFromSlice(a.IP)
		return ok && prefix.Contains(ip.Unmap())
	})
}
