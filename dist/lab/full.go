package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// headers is what IP and UDP take of a packet, in bytes, by subnet.Family.
func headers(f subnet.Family) int { return [...]int{subnet.IPv4: 20 + 8, subnet.IPv6: 40 + 8}[f] }

// ProbeFull sends datagrams from one endpoint to another that are as large as the interfaces at both ends take, and that
// nobody may fragment. One that arrives shows that such packets pass; the answer is small. As [Lab.Probe] it judges the source
// address.
//
// What carries the packet could be fragmented still: [Lab.Fragments] tells.
func (l *Lab) ProbeFull(ctx context.Context, f subnet.Family, from, to *Endpoint) Result {
	r := Result{From: from.name, To: to.name, Family: f}
	if !share(f, from, to) {
		r.Err = errNoShared(f, from, to)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, l.options.Patience)
	defer cancel()
	if r.Size, r.Err = fullSize(f, from, to); r.Err != nil {
		return r
	}
	target, dialer := netip.AddrPortFrom(to.Addr(f), EchoPort), net.Dialer{Control: whole}
	if r.RTT, r.Source, r.Err = probeUDP(ctx, dialer, from.do, target, r.Size-headers(f)); r.Err != nil {
		r.Err = fmt.Errorf("UDP, %d bytes with all headers: %w", r.Size, r.Err)
		return r
	}
	r.Err = from.source(r.Source, to)
	return r
}

// ProbeFullShared is [Lab.ProbeFull] in each family that both ends have, as [Lab.ProbeShared].
func (l *Lab) ProbeFullShared(ctx context.Context, from, to *Endpoint) []Result {
	return eachShared(from, to, func(f subnet.Family) Result { return l.ProbeFull(ctx, f, from, to) })
}

// ProbeUnderlay is [Lab.ProbeFull] between the nodes' underlay addresses: whether the network that carries the overlay lets
// pass what the uplinks' MTUs promise. Nothing fragments those packets, so a switch with a smaller MTU shows as loss.
func (l *Lab) ProbeUnderlay(ctx context.Context) (results []Result) {
	for _, f := range l.Families() {
		for _, from := range l.nodes {
			for _, to := range l.nodes {
				if from != to {
					results = append(results, l.ProbeFull(ctx, f, from.Endpoint, to.Endpoint))
				}
			}
		}
	}
	return results
}

// whole has a socket's packets go as they are or not at all. IP_PMTUDISC_PROBE sets DF and takes no notice of a path MTU
// that was learnt (ip(7)), so that a path which once was narrow does not go on looking so.
func whole(network, _ string, conn syscall.RawConn) error {
	var err error
	controlErr := conn.Control(func(fd uintptr) {
		if network == "udp4" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			return
		}
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
		}
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}

// fullSize is the MTU of the interface by which from sends to to, or that of the interface which has to's address, whichever
// is smaller. They can differ: a pod with addresses of both families has one MTU, a node's devices have one each.
func fullSize(f subnet.Family, from, to *Endpoint) (int, error) {
	out, err := in(from.do, func() (int, error) { return mtuTo(to.Addr(f)) })
	if err != nil {
		return 0, fmt.Errorf("%s: %w", from.name, err)
	}
	into, err := in(to.do, func() (int, error) { return mtuAt(to.Addr(f)) })
	if err != nil {
		return 0, fmt.Errorf("%s: %w", to.name, err)
	}
	return min(out, into), nil
}

// mtuTo is the MTU of the interface by which the calling thread's network namespace sends to an address.
func mtuTo(to netip.Addr) (int, error) {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil {
		return 0, fmt.Errorf("look up the route to %s: %w", to, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("there is no route to %s", to)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("find the interface of the route to %s: %w", to, err)
	}
	return link.Attrs().MTU, nil
}

// mtuAt is the MTU of the interface of the calling thread's network namespace that has an address.
func mtuAt(addr netip.Addr) (int, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("list the addresses: %w", err)
	}
	for _, a := range addrs {
		if addrOf(a.IP) != addr {
			continue
		}
		link, err := netlink.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("find the interface of %s: %w", addr, err)
		}
		return link.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("no interface has %s", addr)
}
