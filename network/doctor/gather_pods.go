package doctor

import (
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// Pod is a pod of this node as the CNI plugin recorded it, and what was found in its network namespace.
type Pod struct {
	Name     string // the container's ID, and its interface
	Bridge   string
	Port     string         // its interface on the node
	Prefixes []netip.Prefix // that it was given
	Entered  bool           // the fields below were read in its namespace
	Link     bool           // its interface exists
	Up       bool
	Missing  []netip.Prefix // of Prefixes, those that its interface lacks
	NoRoute  []netip.Addr   // gateways of default routes that it was given and lacks
	Taken    []netip.Addr   // its gateways' addresses that it has itself
}

// gatherPods reads the records of the pods and looks into their namespaces. The daemon does not: it would have to poll.
func gatherPods(subnetFile string) (all []Pod, damaged []error) {
	reader := attachment.Reader{Dir: attachment.Dir(subnetFile)}
	records, damaged, _, err := reader.Read()
	if err != nil {
		return nil, nil // as for one who may not read them
	}
	for _, r := range records {
		p, err := pods.Parse(r)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		x := Pod{Name: p.Container + " (" + p.Interface + ")", Bridge: p.Bridge, Port: p.Port, Prefixes: p.Prefixes}
		inNamespace(p.NetNS, func() { x.look(p) })
		all = append(all, x)
	}
	return all, damaged
}

// inNamespace calls f on a thread of its own in the network namespace at path, if there is one.
func inNamespace(path string, f func()) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(ns)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with this goroutine
		if unix.Setns(ns, unix.CLONE_NEWNET) == nil {
			f()
		}
	}()
	<-done
}

// look reads the state of the pod's interface in the namespace of the calling thread.
func (p *Pod) look(recorded pods.Pod) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return
	}
	defer handle.Close()
	p.Entered = true
	link, err := handle.LinkByName(recorded.Interface)
	if err != nil {
		return
	}
	p.Link, p.Up = true, link.Attrs().RawFlags&unix.IFF_UP != 0
	var has []netip.Prefix
	addresses, _ := handle.AddrList(link, netlink.FAMILY_ALL) // on an error it has none
	for _, a := range addresses {
		if x, ok := prefixOf(a.IPNet); ok {
			has = append(has, x)
			if slices.Contains(recorded.Gateways, x.Addr()) && !slices.Contains(p.Prefixes, x) {
				p.Taken = append(p.Taken, x.Addr())
			}
		}
	}
	for _, x := range p.Prefixes {
		if !slices.Contains(has, x) {
			p.Missing = append(p.Missing, x)
		}
	}
	routes, _ := handle.RouteList(nil, netlink.FAMILY_ALL)
	for _, gateway := range recorded.DefaultGateways() {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return isDefault(r, gateway) }) {
			p.NoRoute = append(p.NoRoute, gateway)
		}
	}
}

func isDefault(r netlink.Route, gateway netip.Addr) bool {
	via, _ := netip.AddrFromSlice(r.Gw)
	dst, ok := prefixOf(r.Dst)
	return via.Unmap().Is4() == gateway.Is4() && via.IsValid() && (!ok || dst.Bits() == 0)
}

// shortName shortens the container's ID in the name of a pod, as runtimes do.
func (p Pod) shortName() string {
	id, rest, _ := strings.Cut(p.Name, " ")
	return id[:min(len(id), 12)] + " " + rest
}
