package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// namedFaults are those of a node's own side that the daemon does not repair, since the objects belong to others. The
// status or doctor names the problem until the fault is undone. They concern the last pod of a node: the first one, if
// there is another, loses nothing.
func namedFaults() []Fault {
	const soon = 200 * time.Millisecond // from Undo until nothing is wrong
	inPod := func(name string, do func(*target, subnet.Family) error) Fault {
		return Fault{Name: "own side: " + name, Class: OwnSide, Families: both(), Running: true, Unbroken: true,
			Bound: soon, Inject: inEachFamily(do), Meanwhile: namedByDoctor, Undo: inEachFamily((*target).restorePod)}
	}
	foreign := func(name string, reason status.Reason, do, undo func(*target, subnet.Family) error) Fault {
		return Fault{Name: "own side: " + name, Class: OwnSide, Families: both(), Running: true, Bound: soon,
			Inject: inEachFamily(do), Undo: inEachFamily(undo), After: noLongerDegraded,
			Meanwhile: func(ctx context.Context, t *target) error {
				return t.awaitStatus(ctx, status.Degraded, reason, len(t.families))
			}}
	}
	return []Fault{
		inPod("pod's address removed in the pod", func(t *target, f subnet.Family) error {
			return t.inPod(f, func(l netlink.Link, b podBefore) error { return netlink.AddrDel(l, &b.address) })
		}),
		inPod("pod's default route removed in the pod", func(t *target, f subnet.Family) error {
			return t.inPod(f, func(_ netlink.Link, b podBefore) error { return netlink.RouteDel(&b.route) })
		}),
		foreign("blackhole in the own subnet", status.RouteShadowed,
			func(t *target, f subnet.Family) error { return t.nl.RouteAdd(t.blackhole(f)) },
			func(t *target, f subnet.Family) error { return t.nl.RouteDel(t.blackhole(f)) }),
		foreign("permanent neighbour entry with a pod's address", status.NeighbourShadowed,
			func(t *target, f subnet.Family) error {
				return t.onNeighbour(f, func(n *netlink.Neigh) error { return t.nl.NeighSet(n) })
			},
			func(t *target, f subnet.Family) error {
				return t.onNeighbour(f, func(n *netlink.Neigh) error { return t.nl.NeighDel(n) })
			}),
	}
}

// lastPod is the pod that the named faults concern.
func (t *target) lastPod() *lab.Pod { return t.pods[len(t.pods)-1] }

// podBefore is what a pod has of one family: its address, and its default route.
type podBefore struct {
	address netlink.Addr
	route   netlink.Route
}

// inPod calls do in the pod, with its interface. What the pod had before is noted for [target.restorePod].
func (t *target) inPod(f subnet.Family, do func(netlink.Link, podBefore) error) error {
	before, _ := t.noted.([2]podBefore)
	err := t.lastPod().Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, int(netlinkFamily(f)))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(addrs, func(a netlink.Addr) bool { return addrOf(a.IP) == t.lastPod().Addr(f) })
		routes, err := netlink.RouteList(link, int(netlinkFamily(f)))
		if err != nil {
			return err
		}
		j := slices.IndexFunc(routes, func(r netlink.Route) bool { return prefixOf(r.Dst).Bits() <= 0 && r.Gw != nil })
		if i < 0 || j < 0 {
			return fmt.Errorf("no %s address or no default route: %v, %v", f, addrs, routes)
		}
		before[f] = podBefore{addrs[i], routes[j]}
		return do(link, before[f])
	})
	if err != nil {
		return fmt.Errorf("in %s: %w", t.lastPod().Name(), err)
	}
	t.noted = before
	return nil
}

// restorePod restores what [target.inPod] noted.
func (t *target) restorePod(f subnet.Family) error {
	before := t.noted.([2]podBefore)[f]
	return t.lastPod().Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		address := netlink.Addr{IPNet: before.address.IPNet, Broadcast: before.address.Broadcast}
		if f == subnet.IPv6 {
			address.Flags = unix.IFA_F_NODAD
		}
		return errors.Join(netlink.AddrReplace(link, &address), netlink.RouteReplace(&before.route))
	})
}

// namedByDoctor returns an error unless doctor and the plugin's CHECK name what a pod lacks.
func namedByDoctor(ctx context.Context, t *target) error {
	name := t.lastPod().PodName()
	// Its exit code reports the finding.
	out, err := t.Output(ctx, t.suite.daemonPath(), "doctor", "--check", "pods", "-o", "json")
	var report struct {
		Findings []struct{ Level, Evidence string }
	}
	if wrong := json.Unmarshal(out, &report); wrong != nil {
		return fmt.Errorf("%s: doctor printed %q: %w (%v)", t.Name(), out, wrong, err)
	}
	named := false
	for _, f := range report.Findings {
		named = named || f.Level == "failure" && strings.Contains(f.Evidence, name)
	}
	if !named {
		return fmt.Errorf("%s: doctor does not name what pod %s lacks: %+v", t.Name(), name, report.Findings)
	}
	if err := t.suite.lab.CheckPod(ctx, t.lastPod()); err == nil {
		return fmt.Errorf("%s: CHECK does not name what pod %s lacks", t.Name(), name)
	}
	return nil
}

// blackhole is a route of another program's that drops packets to a pod.
func (t *target) blackhole(f subnet.Family) *netlink.Route {
	a := t.lastPod().Addr(f)
	return &netlink.Route{Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Type: unix.RTN_BLACKHOLE,
		Protocol: unix.RTPROT_STATIC}
}

// onNeighbour calls do with a neighbour entry of another program's that sends a pod's packets to a MAC address that no
// interface has.
func (t *target) onNeighbour(f subnet.Family, do func(*netlink.Neigh) error) error {
	link, err := t.nl.LinkByName(podBridge)
	if err != nil {
		return err
	}
	return do(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: int(netlinkFamily(f)), State: unix.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0xf0, 0, 0, 0, 0x66}, IP: t.lastPod().Addr(f).AsSlice()})
}

// noLongerDegraded waits until the daemon reports no problem.
func noLongerDegraded(ctx context.Context, t *target) error {
	return t.awaitStatus(ctx, status.Ready, "", 0)
}

// awaitStatus waits until the daemon's status has the given state, and count problems with the given reason.
func (t *target) awaitStatus(ctx context.Context, state status.State, reason status.Reason, count int) error {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	for {
		s, err := t.Status(ctx)
		have := 0
		for _, p := range s.Problems {
			if p.Code == reason {
				have++
			}
		}
		if err == nil && s.State == state && have == count {
			return nil
		}
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s: the status is %s with %+v (%v), want %s with %d of %q",
				t.Name(), s.State, s.Problems, err, state, count, reason)
		}
	}
}
